#!/usr/bin/env bash
# PEA from raw pairs to judged pictures, on the embedded models: every command, in order, and why.
# `pea demo` runs this file; its flags are the variables below.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   bash run.sh                                         # minutes on two cores; no download
#   OUTPUT_DIR=/tmp/pea MAX_TRAIN_STEPS=50 NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `raw pairs -> shards -> features -> adapter -> pictures` is one command and one
# folder under $OUTPUT_DIR. Copy this file and change it for your own data.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

WORLD=${WORLD:-testbed}
[ "$WORLD" = testbed ] || exec bash "$HERE/demo_$WORLD.sh"

OUTPUT_DIR=${OUTPUT_DIR:-runs/pea-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-600}
NUM_SAMPLES=${NUM_SAMPLES:-2000}
NUM_PROMPTS=${NUM_PROMPTS:-24}
LANGUAGES=${LANGUAGES:-de zh}
ZERO_SHOT_LANGUAGES=${ZERO_SHOT_LANGUAGES-ja nl}
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
CONFIG=$HERE/configs/testbed.yaml
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
pea() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m pea "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m pea "$@"
  fi
}

# --------------------------------------------------------------------------------------------------
# An earlier demo's folder is renamed; a folder that holds anything else is refused.
python -m crosslingual.cli.demo "$OUTPUT_DIR"

# Raw pairs -> shards. The picture world draws scenes and describes them in each language; these
# captions translate one another, so all rows are parallel and the English pipeline can teach them.
# For your own pictures: --source folder --input DIR, a folder with metadata.jsonl.
say "shards: $NUM_SAMPLES pictures, captions in en $LANGUAGES"
# shellcheck disable=SC2086  # languages are words
crosslingual shards --source world --split train --num_samples "$NUM_SAMPLES" --seed "$SEED" \
  --languages en $LANGUAGES --output_dir "$OUTPUT_DIR/shards"

# --------------------------------------------------------------------------------------------------
# Shards -> features. VAE, English text encoder and multilingual encoder are frozen: they run once,
# here, and never again. Ranks share the blocks; a second call continues where the first one stopped.
say "features: VAE latents, English and multilingual text states, once"
pea features --config "$CONFIG" --languages $LANGUAGES --seed "$SEED" \
  --shards "$OUTPUT_DIR/shards" --features_dir "$OUTPUT_DIR/features"

# --------------------------------------------------------------------------------------------------
# Features -> adapter. One frozen UNet is teacher and student; the adapter alone is in the optimiser
# and in the checkpoints. Ctrl-C or a kill loses nothing: the same command with
# `--resume_from_checkpoint latest` takes the very steps that the whole run would have taken.
say "training: $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes, one frozen UNet"
before=$SECONDS
pea train --config "$CONFIG" --languages $LANGUAGES --seed "$SEED" \
  --train_data "$OUTPUT_DIR/features" --output_dir "$OUTPUT_DIR/run" \
  --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
train_s=$((SECONDS - before))

# --------------------------------------------------------------------------------------------------
# Adapter -> pictures, judged. Training has exported its last step to run/adapter; `pea export` does
# it for any checkpoint, `pea generate --adapter FOLDER --prompt ...` draws your own prompts. The
# judge reads held-out pictures exactly. as-is is the English model with the untranslated prompt.
say "pictures: $NUM_PROMPTS held-out prompts in each of en $LANGUAGES $ZERO_SHOT_LANGUAGES"
pea evaluate --adapter "$OUTPUT_DIR/run/adapter" --output_dir "$OUTPUT_DIR" --seed "$SEED" \
  --languages $LANGUAGES $ZERO_SHOT_LANGUAGES --num_prompts "$NUM_PROMPTS"
say "done"
echo "trained in $train_s s, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png"
echo "adapter:  $OUTPUT_DIR/run/adapter"
