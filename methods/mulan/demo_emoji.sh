#!/usr/bin/env bash
# MuLan on real pictures and names: an adapter on English names alone, asked in other languages.
# `mulan demo --world emoji` runs this file; its flags are the variables below. Pictures, names and the
# encoder are fetched once (110 MB, into $CROSSLINGUAL_CACHE); what they are, and what a method may read
# of them: tools/worlds/src/crosslingual_worlds/emoji/README.md. `run.sh` says why each command is there.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   pip install -e '../../tools/worlds[emoji]'
#   WORLD=emoji bash run.sh                             # took 179 s on two cores, beside other work
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUTPUT_DIR=${OUTPUT_DIR:-runs/mulan-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-1000}
NUM_PROMPTS=${NUM_PROMPTS:-24}
LANGUAGES=${LANGUAGES-de fr hi ja sw chr}  # all zero-shot; the encoder has never seen chr
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
mulan() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m mulan "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m mulan "$@"
  fi
}

crosslingual-worlds fetch emoji
python -m crosslingual.cli.demo "$OUTPUT_DIR"

CONFIG=$HERE/configs/emoji.yaml
# The base knows all English names, so that all may train.
say "shards: every English name"
crosslingual shards --source emoji --split english --pictures false --seed "$SEED" \
  --languages en --output_dir "$OUTPUT_DIR/shards"
say "features: the states of both text encoders, once"
mulan features --config "$CONFIG" --seed "$SEED" \
  --shards "$OUTPUT_DIR/shards" --features_dir "$OUTPUT_DIR/features"
say "training: $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes"
before=$SECONDS
mulan train --config "$CONFIG" --seed "$SEED" \
  --train_data "$OUTPUT_DIR/features" --output_dir "$OUTPUT_DIR/run" \
  --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
train_s=$((SECONDS - before))
say "pictures: $NUM_PROMPTS names of split test in each of en $LANGUAGES"
# shellcheck disable=SC2086  # languages are words
mulan evaluate --adapter "$OUTPUT_DIR/run/adapter" --output_dir "$OUTPUT_DIR" --seed "$SEED" \
  --languages en $LANGUAGES --num_prompts "$NUM_PROMPTS"
say "done"
echo "trained in $train_s s, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png"
echo "adapter:  $OUTPUT_DIR/run/adapter"
