#!/usr/bin/env bash
# IAP from raw pairs to judged pictures, on the embedded models: every command, in order, and why.
# `iap demo` runs this file; its flags are the variables below.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   bash run.sh                                         # minutes on two cores; no download
#   OUTPUT_DIR=/tmp/iap NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `raw pairs -> shards -> features -> encoder -> pictures` is one command and one
# folder under $OUTPUT_DIR. Copy this file and change it for your own data. The ablation of the
# README starts from these features: see configs/ablation.yaml.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

WORLD=${WORLD:-testbed}
[ "$WORLD" = testbed ] || exec bash "$HERE/demo_$WORLD.sh"

OUTPUT_DIR=${OUTPUT_DIR:-runs/iap-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-300}
NUM_SAMPLES=${NUM_SAMPLES:-2000}
NUM_PROMPTS=${NUM_PROMPTS:-48}
TARGET_LANGUAGE=${TARGET_LANGUAGE:-zh}
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
CONFIG=$HERE/configs/testbed.yaml
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
iap() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m iap "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m iap "$@"
  fi
}

# --------------------------------------------------------------------------------------------------
# An earlier demo's folder is renamed; a folder that holds anything else is refused.
python -m crosslingual.cli.demo "$OUTPUT_DIR"

# Triplets -> shards: a picture, its English caption and its target caption. The base was trained on
# 48,000 pictures, so 2,000 are 4 % of them. For your own: --source folder --input DIR, a folder
# with metadata.jsonl.
pictures="$NUM_SAMPLES pictures, $(python -c "print(round($NUM_SAMPLES / 480, 1))") % of the base's"
say "shards: $pictures, captions in en $TARGET_LANGUAGE"
# shellcheck disable=SC2086  # languages are words
crosslingual shards --source world --split train --num_samples "$NUM_SAMPLES" --seed "$SEED" \
  --languages en $TARGET_LANGUAGE --output_dir "$OUTPUT_DIR/shards"

# --------------------------------------------------------------------------------------------------
# Shards -> features. VAE, English text encoder and the English pass through the UNet are frozen:
# they run once, here. The features keep every cross-attention's queries of that pass, and the token
# ids of the target captions. A second call continues where the first one stopped.
say "features: VAE latents, English states, queries of the English pass, token ids, once"
iap features --config "$CONFIG" --target_language $TARGET_LANGUAGE --seed "$SEED" \
  --shards "$OUTPUT_DIR/shards" --features_dir "$OUTPUT_DIR/features"

# --------------------------------------------------------------------------------------------------
# Features -> encoder. It alone is in the optimiser and in the checkpoints. Ctrl-C or a kill loses
# nothing: the same command with `--resume_from_checkpoint latest` takes the very steps that the
# whole run would have taken.
say "training: $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes; the UNet's cross-attentions alone"
before=$SECONDS
iap train --config "$CONFIG" --target_language $TARGET_LANGUAGE --seed "$SEED" \
  --train_data "$OUTPUT_DIR/features" --output_dir "$OUTPUT_DIR/run" \
  --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
train_s=$((SECONDS - before))

# --------------------------------------------------------------------------------------------------
# Encoder -> pictures, judged. Training has exported its last step to run/encoder; `iap export` does
# it for any checkpoint (with `--pipeline true`, as a whole pipeline that stock diffusers loads), and
# `iap generate --adapter FOLDER --prompt ...` draws your own prompts. The judge reads held-out
# pictures exactly. as-is is the English model with the untranslated prompt.
say "pictures: $NUM_PROMPTS held-out prompts in each of en $TARGET_LANGUAGE"
iap evaluate --adapter "$OUTPUT_DIR/run/encoder" --output_dir "$OUTPUT_DIR" --seed "$SEED" \
  --num_prompts "$NUM_PROMPTS"
say "done"
echo "$pictures; trained in $train_s s, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png"
echo "encoder:  $OUTPUT_DIR/run/encoder"
