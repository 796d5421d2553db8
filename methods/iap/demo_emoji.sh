#!/usr/bin/env bash
# IAP on real pictures and names: e5 becomes a text encoder of emoji:sd for one more language.
# `iap demo --world emoji` runs this file; its flags are the variables below. Pictures, names and the
# encoder are fetched once (110 MB, into $CROSSLINGUAL_CACHE); what they are, and what a method may read
# of them: tools/worlds/src/crosslingual_worlds/emoji/README.md. `run.sh` says why each command is there.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   pip install -e '../../tools/worlds[emoji]'
#   WORLD=emoji bash run.sh                             # took 525 s on two cores, beside other work
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUTPUT_DIR=${OUTPUT_DIR:-runs/iap-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-300}
NUM_PROMPTS=${NUM_PROMPTS:-24}
TARGET_LANGUAGE=${TARGET_LANGUAGE:-zh}
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
iap() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m iap "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m iap "$@"
  fi
}

crosslingual-worlds fetch emoji
python -m crosslingual.cli.demo "$OUTPUT_DIR"

CONFIG=$HERE/configs/emoji.yaml
say "shards: pictures of split train, names in en $TARGET_LANGUAGE"
# shellcheck disable=SC2086  # languages are words
crosslingual shards --source emoji --split train --seed "$SEED" \
  --languages en $TARGET_LANGUAGE --output_dir "$OUTPUT_DIR/shards"
say "features: latents, English states, queries of the English pass, token ids, once"
# shellcheck disable=SC2086
iap features --config "$CONFIG" --target_language $TARGET_LANGUAGE --seed "$SEED" \
  --shards "$OUTPUT_DIR/shards" --features_dir "$OUTPUT_DIR/features"
say "training: $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes"
before=$SECONDS
# shellcheck disable=SC2086
iap train --config "$CONFIG" --target_language $TARGET_LANGUAGE --seed "$SEED" \
  --train_data "$OUTPUT_DIR/features" --output_dir "$OUTPUT_DIR/run" \
  --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
train_s=$((SECONDS - before))
say "pictures: $NUM_PROMPTS names that it has read in $TARGET_LANGUAGE, of split train"
iap evaluate --adapter "$OUTPUT_DIR/run/encoder" --output_dir "$OUTPUT_DIR/read" --seed "$SEED" \
  --num_prompts "$NUM_PROMPTS" --split train
say "pictures: $NUM_PROMPTS names that it has not read, of split test"
iap evaluate --adapter "$OUTPUT_DIR/run/encoder" --output_dir "$OUTPUT_DIR" --seed "$SEED" \
  --num_prompts "$NUM_PROMPTS"
say "done"
echo "trained in $train_s s, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png"
echo "encoder:  $OUTPUT_DIR/run/encoder"
