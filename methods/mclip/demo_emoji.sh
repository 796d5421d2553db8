#!/usr/bin/env bash
# mCLIP on real pictures and names: stage 1 on e5, then projectors to emoji:clip.
# `mclip demo --world emoji` runs this file; its flags are the variables below. Pictures, names and the
# encoder are fetched once (110 MB, into $CROSSLINGUAL_CACHE); what they are, and what a method may read
# of them: tools/worlds/src/crosslingual_worlds/emoji/README.md. `run.sh` says why each command is there.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   pip install -e '../../tools/worlds[emoji]'
#   WORLD=emoji bash run.sh                             # took 624 s on two cores, beside other work
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUTPUT_DIR=${OUTPUT_DIR:-runs/mclip-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
LANGUAGES=${LANGUAGES:-de zh}                     # have names of the pictures, besides English
TEXT_LANGUAGES=${TEXT_LANGUAGES-ja nl}            # have names without pictures
ZERO_SHOT_LANGUAGES=${ZERO_SHOT_LANGUAGES-fr hi}  # have neither
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
mclip() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m mclip "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m mclip "$@"
  fi
}

crosslingual-worlds fetch emoji
python -m crosslingual.cli.demo "$OUTPUT_DIR"

CONFIGS=$HERE/configs
# shellcheck disable=SC2086  # languages are words
commas() { echo $* | tr ' ' ','; }
say "shards: pictures to train on, names, pictures of split test to find"
# shellcheck disable=SC2086
{
  crosslingual shards --source emoji --split train --with_english true --seed "$SEED" \
    --languages en $LANGUAGES --output_dir "$OUTPUT_DIR/pictures-shards"
  crosslingual shards --source emoji --split train --pictures false --seed "$SEED" \
    --languages en $LANGUAGES $TEXT_LANGUAGES --output_dir "$OUTPUT_DIR/text-shards"
  crosslingual shards --source emoji --split test \
    --languages en $LANGUAGES $TEXT_LANGUAGES $ZERO_SHOT_LANGUAGES --output_dir "$OUTPUT_DIR/test-shards"
}
say "stage 1: tokens, then step a, a decoder on the frozen encoder"
command python -m mclip tokenize --text_encoder emoji:e5-standardised \
  --train_data "$OUTPUT_DIR/text-shards" --tokens_dir "$OUTPUT_DIR/tokens"
mclip train-encoder --config "$CONFIGS/emoji_step_a.yaml" --seed "$SEED" \
  --train_data "$OUTPUT_DIR/tokens" --output_dir "$OUTPUT_DIR/step-a"
say "step b: the encoder too"
mclip train-encoder --config "$CONFIGS/emoji_step_b.yaml" --seed "$SEED" \
  --train_data "$OUTPUT_DIR/tokens" --translation_model "$OUTPUT_DIR/step-a/translation" \
  --output_dir "$OUTPUT_DIR/step-b"
stage_2() { # NAME ENCODER
  mclip features --config "$CONFIGS/emoji.yaml" --text_encoder "$2" --seed "$SEED" \
    --languages en $LANGUAGES --shards "$OUTPUT_DIR/pictures-shards" --features_dir "$OUTPUT_DIR/$1-features"
  mclip train --config "$CONFIGS/emoji.yaml" --text_encoder "$2" --seed "$SEED" \
    --languages en $LANGUAGES --train_data "$OUTPUT_DIR/$1-features" --output_dir "$OUTPUT_DIR/$1"
}
say "stage 2 after stage 1: features, then TriKD"
stage_2 mclip "$OUTPUT_DIR/step-b/translation/encoder"
say "stage 2 without stage 1, for comparison"
stage_2 plain emoji:e5-standardised
say "retrieval"
for model in emoji:clip "$OUTPUT_DIR/plain/model" "$OUTPUT_DIR/mclip/model"; do
  # shellcheck disable=SC2086
  command python -m mclip evaluate --model "$model" --dataset "$OUTPUT_DIR/test-shards" --output_dir "$OUTPUT_DIR" \
    --num_bootstrap 0 --languages en $LANGUAGES $TEXT_LANGUAGES $ZERO_SHOT_LANGUAGES
done
groups=("pictures=$(commas en $LANGUAGES)")
[ -z "$TEXT_LANGUAGES" ] || groups+=("names alone=$(commas $TEXT_LANGUAGES)")
[ -z "$ZERO_SHOT_LANGUAGES" ] || groups+=("none=$(commas $ZERO_SHOT_LANGUAGES)")
say "done"
command python -m mclip table --results "$OUTPUT_DIR/results.json" --output "$OUTPUT_DIR/table.md" \
  --models "as-is=emoji:clip" "mCLIP without stage 1=$OUTPUT_DIR/plain/model" \
  "mCLIP=$OUTPUT_DIR/mclip/model" --groups "${groups[@]}"
echo "all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "model:   $OUTPUT_DIR/mclip/model"
