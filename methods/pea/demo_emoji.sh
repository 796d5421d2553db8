#!/usr/bin/env bash
# PEA on real pictures and names: an adapter on what emoji:sd's cross-attentions read, then distilled through it.
# `pea demo --world emoji` runs this file; its flags are the variables below. Pictures, names and the
# encoder are fetched once (110 MB, into $CROSSLINGUAL_CACHE); what they are, and what a method may read
# of them: tools/worlds/src/crosslingual_worlds/emoji/README.md. `run.sh` says why each command is there.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   pip install -e '../../tools/worlds[emoji]'
#   WORLD=emoji bash run.sh                             # took 548 s on two cores, beside other work
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUTPUT_DIR=${OUTPUT_DIR:-runs/pea-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
MAX_TRAIN_STEPS=${MAX_TRAIN_STEPS:-800}
NUM_PROMPTS=${NUM_PROMPTS:-24}
LANGUAGES=${LANGUAGES:-de zh}
ZERO_SHOT_LANGUAGES=${ZERO_SHOT_LANGUAGES-fr ja sw chr}
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
pea() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m pea "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m pea "$@"
  fi
}

crosslingual-worlds fetch emoji
python -m crosslingual.cli.demo "$OUTPUT_DIR"

CONFIG=$HERE/configs/emoji.yaml
# Names of 607 emoji in all languages; those of the other 277 in English alone, which the base knows.
say "shards: pictures, names in en $LANGUAGES"
# shellcheck disable=SC2086  # languages are words
crosslingual shards --source emoji --split train --with_english true --seed "$SEED" \
  --languages en $LANGUAGES --output_dir "$OUTPUT_DIR/shards"
say "features: latents, text states, and what cross-attentions are asked in English passes, once"
pea features --config "$CONFIG" --languages en $LANGUAGES --seed "$SEED" \
  --shards "$OUTPUT_DIR/shards" --features_dir "$OUTPUT_DIR/features"
say "training: $MAX_TRAIN_STEPS steps, $NUM_PROCESSES processes"
before=$SECONDS
pea train --config "$CONFIG" --languages en $LANGUAGES --seed "$SEED" \
  --train_data "$OUTPUT_DIR/features" --output_dir "$OUTPUT_DIR/run" \
  --max_train_steps "$MAX_TRAIN_STEPS" --checkpointing_steps "$MAX_TRAIN_STEPS"
train_s=$((SECONDS - before))
say "pictures: $NUM_PROMPTS names that it has read in $LANGUAGES, of split train"
pea evaluate --adapter "$OUTPUT_DIR/run/adapter" --output_dir "$OUTPUT_DIR/read" --seed "$SEED" \
  --languages $LANGUAGES --num_prompts "$NUM_PROMPTS" --split train
say "pictures: $NUM_PROMPTS names that it has not read in $LANGUAGES $ZERO_SHOT_LANGUAGES, of split test"
pea evaluate --adapter "$OUTPUT_DIR/run/adapter" --output_dir "$OUTPUT_DIR" --seed "$SEED" \
  --languages $LANGUAGES $ZERO_SHOT_LANGUAGES --num_prompts "$NUM_PROMPTS"
say "done"
echo "trained in $train_s s, all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png"
echo "adapter:  $OUTPUT_DIR/run/adapter"
