#!/usr/bin/env bash
# MuLan from English captions to judged pictures in other languages, on the embedded models: every
# command, in order, and why. `mulan demo` runs this file; its flags are the variables below.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   bash run.sh                                         # minutes on two cores; no download
#   OUTPUT_DIR=/tmp/mulan MAX_TRAIN_STEPS=50 NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `raw captions -> shards -> features -> adapter -> pictures` is one command and one
# folder under $OUTPUT_DIR. Copy this file and change it for your own data.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

WORLD=${WORLD:-testbed}
[ "$WORLD" = testbed ] || exec bash "$HERE/demo_$WORLD.sh"

OUTPUT_DIR=${OUTPUT_DIR:-runs/mulan-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-900}
NUM_SAMPLES=${NUM_SAMPLES:-6000}
NUM_PROMPTS=${NUM_PROMPTS:-24}
# The languages come with the encoder. The aligned one is the other after mCLIP's stage 1, which
# trained it on translations.
TEXT_ENCODER=${TEXT_ENCODER:-testbed:xlm-r}
ALIGNED_ENCODER=${ALIGNED_ENCODER:-testbed:xlm-r-aligned}
LANGUAGES=${LANGUAGES-de hi ja zh}  # all zero-shot: English alone trains
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
CONFIG=$HERE/configs/testbed.yaml
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
launch() {
  if [ "$NUM_PROCESSES" -gt 1 ]; then
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m mulan "$@"
  else
    mulan "$@"
  fi
}

# --------------------------------------------------------------------------------------------------
# An earlier demo's folder is renamed; a folder that holds anything else is refused.
python -m crosslingual.cli.demo "$OUTPUT_DIR"

# Raw captions -> shards. The picture world describes scenes in English and in no other language.
# Language alignment needs no pictures. Image alignment does: leave out `--pictures false`, and give
# `--alignment image` (or both) to features and train. For your own pictures: --source folder
# --input DIR, a folder with metadata.jsonl.
say "shards: $NUM_SAMPLES English captions"
crosslingual shards --source world --split train --num_samples "$NUM_SAMPLES" --seed "$SEED" \
  --pictures false --languages en --output_dir "$OUTPUT_DIR/shards"

times=()
for name in not_aligned aligned; do
  encoder=$TEXT_ENCODER
  if [ $name = aligned ]; then encoder=$ALIGNED_ENCODER; fi
  folder=$OUTPUT_DIR/$name

  # ------------------------------------------------------------------------------------------------
  # Shards -> features. English and multilingual text encoder are frozen (and, for image alignment,
  # the VAE): they run once, here, and never again. Ranks share the blocks; a second call continues
  # where the first one stopped.
  say "$name: features by $encoder: the states of both text encoders, once"
  launch features --config "$CONFIG" --text_encoder "$encoder" --seed "$SEED" \
    --shards "$OUTPUT_DIR/shards" --features_dir "$folder/features"

  # ------------------------------------------------------------------------------------------------
  # Features -> adapter. The adapter alone is in the optimiser and in the checkpoints. Ctrl-C or a
  # kill loses nothing: the same command with `--resume_from_checkpoint latest` takes the very steps
  # that the whole run would have taken.
  say "$name: training, $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes"
  before=$SECONDS
  launch train --config "$CONFIG" --text_encoder "$encoder" --seed "$SEED" \
    --train_data "$folder/features" --output_dir "$folder/run" \
    --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
  times+=("$((SECONDS - before)) s")
done

# --------------------------------------------------------------------------------------------------
# Adapters -> pictures, judged. Training has exported its last step to run/adapter; `mulan export`
# does it for any checkpoint, `mulan generate --adapter FOLDER --prompt ...` draws your own prompts.
# The judge reads held-out pictures exactly. as-is is the English model with the untranslated prompt.
say "pictures: $NUM_PROMPTS held-out prompts in each of en $LANGUAGES"
# shellcheck disable=SC2086  # languages are words
launch evaluate --adapter "$OUTPUT_DIR/not_aligned/run/adapter" "$OUTPUT_DIR/aligned/run/adapter" \
  --head "MuLan, encoder not aligned" "MuLan, encoder aligned" --output_dir "$OUTPUT_DIR" \
  --languages en $LANGUAGES --num_prompts "$NUM_PROMPTS" --seed "$SEED"
say "done"
echo "trained in ${times[0]}, ${times[1]}, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png"
echo "adapter:  $OUTPUT_DIR/aligned/run/adapter"
