#!/usr/bin/env bash
# MuLan from English captions to judged pictures in other languages, on the embedded models: every
# command, in order, and why.
#
#   pip install -c ../../constraints.txt -e .     # once, in an environment of your own
#   bash run.sh                                   # minutes on two cores; nothing is downloaded
#   OUT=/tmp/mulan NUM_PROCESSES=1 ENCODER=FOLDER bash run.sh
#
# Each arrow of `raw pairs -> shards -> features -> adapter -> pictures` is one command and one folder
# under $OUT. `mulan demo` does the same with a table at the end; this file is to be read and changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

OUT=${OUT:-runs/testbed}
NUM_PROCESSES=${NUM_PROCESSES:-2}
# The languages come with the encoder. This folder holds an XLM-R after mCLIP's stage 1;
# ENCODER=testbed:xlm-r is the same one before it, never aligned across languages.
ENCODER=${ENCODER:-testbed:xlm-r-aligned}
export OMP_NUM_THREADS=1  # a thread a process
launch() { torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m "$@"; }

# ---------------------------------------------------------------------------------------------------
# What will train, and what it takes. Computed from shapes: no weights are read.
mulan info --config configs/testbed.yaml --text_encoder "$ENCODER"

# ---------------------------------------------------------------------------------------------------
# Raw pairs -> shards. The picture world says scenes in English, and in no other language; language
# alignment needs no pictures of them. Image alignment does: leave out `--pictures false`, and give
# `--alignment image` (or both) to features and train. Of your own: --source folder --input DIR, a
# folder with metadata.jsonl.
crosslingual shards --source world --split train --num_samples 6000 --seed 0 --pictures false \
  --languages en --output_dir "$OUT/shards" --overwrite
crosslingual inspect "$OUT/shards"

# Held-out scenes for validation: splits go by what a caption says.
crosslingual shards --source world --split val --num_samples 64 --seed 0 --pictures false \
  --languages en --output_dir "$OUT/val-shards" --overwrite

# ---------------------------------------------------------------------------------------------------
# Shards -> features. English text encoder and multilingual encoder (and, for image alignment, the
# VAE) are frozen: they run once, here, and never again. Ranks share the blocks; a second call goes on
# where the first one stopped.
launch mulan.features --config configs/testbed.yaml --text_encoder "$ENCODER" \
  --shards "$OUT/shards" --features_dir "$OUT/features"
launch mulan.features --config configs/testbed.yaml --text_encoder "$ENCODER" \
  --shards "$OUT/val-shards" --features_dir "$OUT/val-features"

# ---------------------------------------------------------------------------------------------------
# Features -> adapter. The adapter alone is in the optimiser and in the checkpoints. Ctrl-C or a kill
# loses nothing: the same command with `--resume_from_checkpoint latest` takes the very steps that the
# whole run would have taken.
launch mulan.train --config configs/testbed.yaml --text_encoder "$ENCODER" \
  --train_data "$OUT/features" --output_dir "$OUT/mulan" \
  --validation_data "$OUT/val-features" --validation_steps 300 \
  --validation_prompts "a large red star" "ein großer roter Stern"

# ---------------------------------------------------------------------------------------------------
# Adapter -> pictures. `mulan train` has exported the last step to $OUT/mulan/adapter; any checkpoint
# can be exported by hand. The folder is config.json, model.safetensors and a model card.
mulan export --checkpoint "$OUT/mulan" --output_dir "$OUT/adapter"
mulan generate --adapter "$OUT/adapter" --output_dir "$OUT/pictures" \
  --prompt "a large red star" "ein großer roter Stern" "一颗红色的大五角星"

# ---------------------------------------------------------------------------------------------------
# How good is it? The judge reads held-out pictures exactly. `as_is` is the English model with the
# foreign prompt, `english` the upper bound; all languages but English are zero-shot. Writes
# accuracy.json and grid.png.
launch mulan.evaluate --adapter "$OUT/adapter" --output_dir "$OUT" \
  --languages en de fr ru zh --num_prompts 50

echo "adapter $OUT/adapter, pictures $OUT/grid.png, figures $OUT/accuracy.json, curve $OUT/mulan/metrics.jsonl"
