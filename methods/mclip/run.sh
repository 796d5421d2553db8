#!/usr/bin/env bash
# mCLIP from parallel text and captioned pictures to retrieval, on the embedded models: every command,
# in order, and why. `mclip demo` runs this file; its flags are the variables below.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   bash run.sh                                         # minutes on two cores; no download
#   OUTPUT_DIR=/tmp/mclip NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `parallel text -> tokens -> XLM-R` and of `pictures -> shards -> features ->
# projectors -> Recall@K` is one command and one folder under $OUTPUT_DIR. Copy this file and change
# it for your own data. On real sentences: multi30k/run.sh.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

WORLD=${WORLD:-testbed}
[ "$WORLD" = testbed ] || exec bash "$HERE/demo_$WORLD.sh"

OUTPUT_DIR=${OUTPUT_DIR:-runs/mclip-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
NUM_SAMPLES=${NUM_SAMPLES:-2000}
NUM_TEXTS=${NUM_TEXTS:-6000}
NUM_TEST=${NUM_TEST:-500}
LANGUAGES=${LANGUAGES:-de zh}                     # have captions of the pictures, besides English
TEXT_LANGUAGES=${TEXT_LANGUAGES-ja nl}            # have parallel text alone
ZERO_SHOT_LANGUAGES=${ZERO_SHOT_LANGUAGES-hi}     # have neither
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
CONFIGS=$HERE/configs
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
shared() { # a verb that several processes share
  if [ "$NUM_PROCESSES" = 1 ]; then python -m mclip "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m mclip "$@"
  fi
}
# shellcheck disable=SC2086  # languages are words
commas() { echo $* | tr ' ' ','; }

# --------------------------------------------------------------------------------------------------
# An earlier demo's folder is renamed; a folder that holds anything else is refused.
python -m crosslingual.cli.demo "$OUTPUT_DIR"

# Pictures to train on, parallel text, pictures to find. Captions of one scene translate one another.
# Each picture comes once (--distinct): in a contrast, the same scene twice would be a wrong negative.
# For your own data see `crosslingual shards --help`; Moses files need no shards: give
# `mclip tokenize --train_data opus/Tatoeba.de-en` the files as they are.
say "shards: $NUM_SAMPLES pictures to train on, $NUM_TEXTS sentences in each language, $NUM_TEST to find"
# shellcheck disable=SC2086  # languages are words
world() { crosslingual shards --source world --distinct "$@"; }
world --split train --seed "$SEED" --num_samples "$NUM_SAMPLES" \
  --languages en $LANGUAGES --output_dir "$OUTPUT_DIR/pictures-shards"
world --split train --seed $((SEED + 1)) --num_samples "$NUM_TEXTS" --pictures false \
  --languages en $LANGUAGES $TEXT_LANGUAGES --output_dir "$OUTPUT_DIR/text-shards"
world --split test --seed $((SEED + 2)) --num_samples "$NUM_TEST" \
  --languages en $LANGUAGES $TEXT_LANGUAGES $ZERO_SHOT_LANGUAGES --output_dir "$OUTPUT_DIR/test-shards"

# --------------------------------------------------------------------------------------------------
# Stage 1. Step a: a decoder learns to translate from the states of the frozen XLM-R. Step b: XLM-R
# learns too, by translation and by the contrast between a sentence and its translation. The folder
# `translation` holds the translator, and in it the encoder that stage 2 takes.
say "stage 1: tokens, then step a, a decoder on the frozen XLM-R"
mclip tokenize --train_data "$OUTPUT_DIR/text-shards" --tokens_dir "$OUTPUT_DIR/tokens"
shared train-encoder --config "$CONFIGS/testbed_step_a.yaml" --seed "$SEED" \
  --train_data "$OUTPUT_DIR/tokens" --output_dir "$OUTPUT_DIR/step-a"
say "step b: XLM-R too, NMT + 2 CTL"
shared train-encoder --config "$CONFIGS/testbed_step_b.yaml" --seed "$SEED" \
  --train_data "$OUTPUT_DIR/tokens" --translation_model "$OUTPUT_DIR/step-a/translation" \
  --output_dir "$OUTPUT_DIR/step-b"
ENCODER=$OUTPUT_DIR/step-b/translation/encoder
# So few steps teach it grammar and not yet the words: a translator needs more of them.
echo "ein großer roter Stern links von einem kleinen blauen Ring" |
  mclip translate --model "$OUTPUT_DIR/step-b/translation" --target_language en

# --------------------------------------------------------------------------------------------------
# Stage 2: pictures -> features -> projectors, by triangle knowledge distillation. CLIP and the encoder
# are frozen: they run once, for the features. Ctrl-C or a kill loses nothing: the same command with
# `--resume_from_checkpoint latest` takes the very same steps.
stage_2() { # NAME ENCODER
  shared features --config "$CONFIGS/testbed.yaml" --text_encoder "$2" --seed "$SEED" \
    --languages en $LANGUAGES --shards "$OUTPUT_DIR/pictures-shards" --features_dir "$OUTPUT_DIR/$1-features"
  shared train --config "$CONFIGS/testbed.yaml" --text_encoder "$2" --seed "$SEED" \
    --languages en $LANGUAGES --train_data "$OUTPUT_DIR/$1-features" --output_dir "$OUTPUT_DIR/$1"
}
say "stage 2 after stage 1: features, then TriKD"
stage_2 mclip "$ENCODER"
say "stage 2 without stage 1, for comparison"
stage_2 plain testbed:xlm-r

# --------------------------------------------------------------------------------------------------
# How good is it? Held-out pictures, asked for in languages that had pictures, that had parallel text
# alone, and that had nothing. as-is is the English CLIP with the foreign sentence.
say "retrieval"
for model in testbed:clip "$OUTPUT_DIR/plain/model" "$OUTPUT_DIR/mclip/model"; do
  mclip evaluate --model "$model" --dataset "$OUTPUT_DIR/test-shards" --output_dir "$OUTPUT_DIR" \
    --num_bootstrap 0 --languages en $LANGUAGES $TEXT_LANGUAGES $ZERO_SHOT_LANGUAGES
done
groups=("pictures=$(commas en $LANGUAGES)")
[ -z "$TEXT_LANGUAGES" ] || groups+=("parallel text alone=$(commas $TEXT_LANGUAGES)")
[ -z "$ZERO_SHOT_LANGUAGES" ] || groups+=("none=$(commas $ZERO_SHOT_LANGUAGES)")

# Use: embeddings for an index of your own, and the pictures that answer a query, here held-out scenes.
# `mclip export --checkpoint RUN --output_dir DIR --bundle_encoder` makes a folder that needs no other.
mclip embed --model "$OUTPUT_DIR/mclip/model" --shards "$OUTPUT_DIR/test-shards" \
  --output "$OUTPUT_DIR/test-pictures"
mclip search --model "$OUTPUT_DIR/mclip/model" --index "$OUTPUT_DIR/test-pictures" \
  --output "$OUTPUT_DIR/search.png" --query \
  "ein kleiner oranger Ring links von einem kleinen rosa Kreis" \
  "一个蓝色的大圆形在一个黑色的小月亮左边" \
  "大きな黄色いハートの左にある小さな赤い十字" \
  "een kleine zwarte maan boven een grote zwarte maan" \
  "एक छोटे नारंगी दिल के बाईं ओर एक छोटा बैंगनी छल्ला"
say "done"
mclip table --results "$OUTPUT_DIR/results.json" --output "$OUTPUT_DIR/table.md" \
  --models "as-is=testbed:clip" "mCLIP without stage 1=$OUTPUT_DIR/plain/model" \
  "mCLIP=$OUTPUT_DIR/mclip/model" --groups "${groups[@]}"
echo "all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "queries: $OUTPUT_DIR/search.png"
echo "model:   $OUTPUT_DIR/mclip/model"
