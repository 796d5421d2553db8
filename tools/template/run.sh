#!/usr/bin/env bash
# The whole method on the embedded models: some minutes on two cores, no GPU, no download.
# `template demo` runs this file; its flags are the variables below.
#
#   bash run.sh
#   OUTPUT_DIR=/tmp/template MAX_TRAIN_STEPS=50 NUM_PROCESSES=1 bash run.sh
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

WORLD=${WORLD:-testbed}  # the only one here; a method with another has a demo_WORLD.sh
OUTPUT_DIR=${OUTPUT_DIR:-runs/template-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-1000}
NUM_SAMPLES=${NUM_SAMPLES:-2000}
NUM_PROMPTS=${NUM_PROMPTS:-12}
LANGUAGES=${LANGUAGES:-de zh}
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
template() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m template "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m template "$@"
  fi
}

# An earlier demo's folder is renamed; a folder that holds anything else is refused.
python -m crosslingual.cli.demo "$OUTPUT_DIR"

# Raw pairs -> shards: scenes of the picture world, with captions in English and the languages.
say "shards: $NUM_SAMPLES captions in en $LANGUAGES"
# shellcheck disable=SC2086  # languages are words
crosslingual shards --source world --split train --num_samples "$NUM_SAMPLES" --seed "$SEED" \
  --languages en $LANGUAGES --output_dir "$OUTPUT_DIR/shards"

# Shards -> features: the states of both frozen text encoders, once; no picture is decoded.
say "features: English and multilingual text states, once"
template features --config "$HERE/configs/testbed.yaml" --languages $LANGUAGES --seed "$SEED" \
  --shards "$OUTPUT_DIR/shards" --features_dir "$OUTPUT_DIR/features"

# Features -> checkpoints and the adapter, in run/adapter.
say "training: $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes"
before=$SECONDS
template train --config "$HERE/configs/testbed.yaml" --languages $LANGUAGES --seed "$SEED" \
  --train_data "$OUTPUT_DIR/features" --output_dir "$OUTPUT_DIR/run" \
  --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
train_s=$((SECONDS - before))

# Adapter -> pictures, judged.
say "pictures: $NUM_PROMPTS held-out prompts in each of en $LANGUAGES"
template evaluate --adapter "$OUTPUT_DIR/run/adapter" --output_dir "$OUTPUT_DIR" --seed "$SEED" \
  --languages $LANGUAGES --num_prompts "$NUM_PROMPTS"
say "done"
echo "trained in $train_s s, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "adapter: $OUTPUT_DIR/run/adapter"
