#!/usr/bin/env bash
# PEA from raw pairs to judged pictures, on the embedded models: every command, in order, and why.
#
#   pip install -c ../../constraints.txt -e .     # once, in an environment of your own
#   bash run.sh                                   # minutes on two cores; nothing is downloaded
#   OUT=/tmp/pea NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `raw pairs -> shards -> features -> adapter -> pictures` is one command and one folder
# under $OUT. `pea demo` does the same with a table at the end; this file is to be read and changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

OUT=${OUT:-runs/testbed}
NUM_PROCESSES=${NUM_PROCESSES:-2}
export OMP_NUM_THREADS=1  # a thread a process
launch() { torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m "$@"; }

# ---------------------------------------------------------------------------------------------------
# What will train, and what it takes. Computed from shapes: no weights are read.
pea info --config configs/testbed.yaml

# ---------------------------------------------------------------------------------------------------
# Raw pairs -> shards. The picture world draws scenes and says them in each language; these captions
# translate one another, so all rows are parallel and the English pipeline can teach them. Of your
# own pictures: --source folder --input DIR, a folder with metadata.jsonl.
crosslingual shards --source world --split train --num_samples 2000 --seed 0 \
  --languages en de zh --output_dir "$OUT/shards" --overwrite
crosslingual inspect "$OUT/shards"

# Held-out scenes for validation: splits go by what a caption says, in every language at once.
crosslingual shards --source world --split val --num_samples 64 --seed 0 \
  --languages en de zh --output_dir "$OUT/val-shards" --overwrite

# ---------------------------------------------------------------------------------------------------
# Shards -> features. VAE, English text encoder and multilingual encoder are frozen: they run once,
# here, and never again. Ranks share the blocks; a second call goes on where the first one stopped.
launch pea.features --config configs/testbed.yaml \
  --shards "$OUT/shards" --features_dir "$OUT/features"
launch pea.features --config configs/testbed.yaml \
  --shards "$OUT/val-shards" --features_dir "$OUT/val-features"

# ---------------------------------------------------------------------------------------------------
# Features -> adapter. One frozen UNet is teacher and student; the adapter alone is in the optimiser
# and in the checkpoints. Ctrl-C or a kill loses nothing: the same command with
# `--resume_from_checkpoint latest` takes the very steps that the whole run would have taken.
launch pea.train --config configs/testbed.yaml \
  --train_data "$OUT/features" --output_dir "$OUT/pea" \
  --validation_data "$OUT/val-features" --validation_steps 200 \
  --validation_prompts "ein großer roter Stern" "一颗红色的大五角星"

# ---------------------------------------------------------------------------------------------------
# Adapter -> pictures. `pea train` has exported the last step to $OUT/pea/adapter; any checkpoint can
# be exported by hand. The folder is config.json, model.safetensors and a model card.
pea export --checkpoint "$OUT/pea" --output_dir "$OUT/adapter"
pea generate --adapter "$OUT/adapter" --output_dir "$OUT/pictures" \
  --prompt "ein großer roter Stern" "一颗红色的大五角星" "een grote rode ster"

# ---------------------------------------------------------------------------------------------------
# How good is it? The judge reads held-out pictures exactly. `as_is` is the English model with the
# foreign prompt, `english` the upper bound; hi, ja, nl and ru never trained. Writes accuracy.json
# and grid.png.
launch pea.evaluate --adapter "$OUT/adapter" --output_dir "$OUT" \
  --languages de zh hi ja nl ru --num_prompts 50

echo "adapter $OUT/adapter, pictures $OUT/grid.png, figures $OUT/accuracy.json, curve $OUT/pea/metrics.jsonl"
