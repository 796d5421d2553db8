#!/usr/bin/env bash
# IAP from raw pairs to judged pictures, on the embedded models: every command, in order, and why.
#
#   pip install -c ../../constraints.txt -e .     # once, in an environment of your own
#   bash run.sh                                   # minutes on two cores; nothing is downloaded
#   OUT=/tmp/iap NUM_PROCESSES=1 bash run.sh
#   ABLATE=1 bash run.sh                          # and the ablation of the README: another hour
#
# Each arrow of `raw pairs -> shards -> features -> encoder -> pictures` is one command and one folder
# under $OUT. `iap demo` does the same with a table at the end; this file is to be read and changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

OUT=${OUT:-runs/testbed}
NUM_PROCESSES=${NUM_PROCESSES:-2}
export OMP_NUM_THREADS=1  # a thread a process
launch() { torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m "$@"; }

# ---------------------------------------------------------------------------------------------------
# What will train, and what it takes. Computed from shapes: no weights are read.
iap info --config configs/testbed.yaml

# ---------------------------------------------------------------------------------------------------
# Triplets -> shards: a picture, its English caption, its Chinese one. 2,000 pictures are 4 % of the
# 48,000 that the base was trained on. Of your own: --source folder --input DIR, a folder with
# metadata.jsonl.
crosslingual shards --source world --split train --num_samples 2000 --seed 0 \
  --languages en zh --output_dir "$OUT/shards" --overwrite
crosslingual inspect "$OUT/shards"

# Held-out scenes for validation: splits go by what a caption says, in every language at once.
crosslingual shards --source world --split val --num_samples 64 --seed 0 \
  --languages en zh --output_dir "$OUT/val-shards" --overwrite

# ---------------------------------------------------------------------------------------------------
# Shards -> features. VAE, English text encoder and the English pass through the UNet are frozen:
# they run once, here. Of the pass, every cross-attention's queries are kept; of the target captions,
# their token ids. A second call goes on where the first one stopped.
launch iap.features --config configs/testbed.yaml \
  --shards "$OUT/shards" --features_dir "$OUT/features"
launch iap.features --config configs/testbed.yaml \
  --shards "$OUT/val-shards" --features_dir "$OUT/val-features"

# ---------------------------------------------------------------------------------------------------
# Features -> encoder. It alone is in the optimiser and in the checkpoints. Ctrl-C or a kill loses
# nothing: the same command with `--resume_from_checkpoint latest` takes the very steps that the
# whole run would have taken.
launch iap.train --config configs/testbed.yaml \
  --train_data "$OUT/features" --output_dir "$OUT/iap" \
  --validation_data "$OUT/val-features" --validation_steps 100

# ---------------------------------------------------------------------------------------------------
# Encoder -> pictures. `iap train` has exported the last step to $OUT/iap/encoder; any checkpoint can
# be exported by hand, here with the whole pipeline, which stock diffusers loads as it is.
iap export --checkpoint "$OUT/iap" --output_dir "$OUT/encoder" --pipeline true
iap generate --adapter "$OUT/encoder" --output_dir "$OUT/pictures" \
  --prompt "一颗红色的大五角星" "一个蓝色的小圆环"

# ---------------------------------------------------------------------------------------------------
# How good is it? The judge reads held-out pictures exactly. `as_is` is the English model with the
# foreign prompt, `english` the upper bound. Writes accuracy.json and grid.png.
launch iap.evaluate --adapter "$OUT/encoder" --output_dir "$OUT" --num_prompts 100

# ---------------------------------------------------------------------------------------------------
# What the abstract leaves open, arm by arm under one budget: branch, layers, distance, and text-space
# MSE, which any claim must beat. A second call goes on where the first one stopped.
if [ "${ABLATE:-0}" = 1 ]; then
  iap ablate --config configs/ablation.yaml --train_data "$OUT/features" --output_dir "$OUT/ablation"
fi

echo "encoder $OUT/encoder, pictures $OUT/grid.png, figures $OUT/accuracy.json, curve $OUT/iap/metrics.jsonl"
