#!/usr/bin/env bash
# mCLIP from parallel text and captioned pictures to retrieval, on the embedded models: every command,
# in order, and why.
#
#   pip install -c ../../constraints.txt -e .     # once, in an environment of your own
#   bash run.sh                                   # minutes on two cores; nothing is downloaded
#   OUT=/tmp/mclip NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `parallel text -> tokens -> XLM-R` and of `pictures -> shards -> features ->
# projectors -> Recall@K` is one command and one folder under $OUT. `mclip demo` does the same with a
# table at the end; this file is to be read and changed. On real sentences: multi30k/run.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

OUT=${OUT:-runs/testbed}
NUM_PROCESSES=${NUM_PROCESSES:-2}
export OMP_NUM_THREADS=1  # a thread a process
launch() { torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m "$@"; }

# ---------------------------------------------------------------------------------------------------
# What will train, and what it takes. Computed from shapes: no weights are read.
mclip info --config configs/testbed.yaml --text_encoder testbed:xlm-r

# ---------------------------------------------------------------------------------------------------
# Parallel text -> shards -> tokens. Captions that translate one another, without pictures. Moses
# files need no shards: --train_data opus/Tatoeba.de-en takes them as they are.
crosslingual shards --source world --split train --distinct --pictures false --seed 1 \
  --num_samples 6000 --languages en de zh ja nl --output_dir "$OUT/text-shards" --overwrite
mclip tokenize --train_data "$OUT/text-shards" --tokens_dir "$OUT/tokens"

# ---------------------------------------------------------------------------------------------------
# Stage 1. Step a: a decoder learns to translate from what the frozen XLM-R says. Step b: XLM-R
# learns too, by translation and by the contrast between a sentence and its translation. The folder
# holds the translator, and in it the encoder that stage 2 goes on with.
launch mclip.train_encoder --config configs/testbed_step_a.yaml \
  --train_data "$OUT/tokens" --output_dir "$OUT/step-a"
launch mclip.train_encoder --config configs/testbed_step_b.yaml \
  --train_data "$OUT/tokens" --translation_model "$OUT/step-a/translation" \
  --output_dir "$OUT/step-b"
# So few steps teach it grammar and not yet the words: a translator wants more of them.
echo "ein großer roter Stern links von einem kleinen blauen Ring" | mclip translate --model "$OUT/step-b/translation" --target_language en

# ---------------------------------------------------------------------------------------------------
# Pictures -> shards -> features. CLIP and the encoder are frozen: they run once, here. Each picture
# comes once: in a contrast, the same scene twice would be a wrong negative.
crosslingual shards --source world --split train --distinct --seed 0 --num_samples 2000 \
  --languages en de zh --output_dir "$OUT/shards" --overwrite
launch mclip.features --config configs/testbed.yaml \
  --text_encoder "$OUT/step-b/translation/encoder" \
  --shards "$OUT/shards" --features_dir "$OUT/features"

# ---------------------------------------------------------------------------------------------------
# Stage 2. Features -> projectors, by triangle knowledge distillation. Ctrl-C or a kill loses
# nothing: the same command with `--resume_from_checkpoint latest` takes the very same steps.
launch mclip.train --config configs/testbed.yaml \
  --text_encoder "$OUT/step-b/translation/encoder" \
  --train_data "$OUT/features" --output_dir "$OUT/mclip"

# ---------------------------------------------------------------------------------------------------
# How good is it? Held-out pictures, asked for in the languages that had pictures (en de zh), in those
# that had parallel text alone (ja nl) and in one that had nothing (hi). CLIP itself stands beside it.
crosslingual shards --source world --split test --distinct --seed 2 --num_samples 500 \
  --languages en de zh ja nl hi --output_dir "$OUT/test-shards" --overwrite
for model in testbed:clip "$OUT/mclip/model"; do
  mclip evaluate --model "$model" --dataset "$OUT/test-shards" --output_dir "$OUT" \
    --languages en de zh ja nl hi
done

# ---------------------------------------------------------------------------------------------------
# Use: embeddings for an index of your own, and pictures that answer a query.
mclip embed --model "$OUT/mclip/model" --shards "$OUT/test-shards" --output "$OUT/pictures"
mclip search --model "$OUT/mclip/model" --index "$OUT/pictures" --output "$OUT/search.png" \
  --query "ein kleiner roter Stern" "小さな赤い星" "一颗红色的小五角星"

# A model's folder that needs no other: the enhanced encoder is copied into it.
mclip export --checkpoint "$OUT/mclip" --output_dir "$OUT/bundle" --bundle_encoder

echo "model $OUT/bundle, figures $OUT/results.json, queries $OUT/search.png"
