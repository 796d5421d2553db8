#!/usr/bin/env bash
# The whole of it on the embedded models: some minutes on two cores, no GPU, no download.
#
#   bash run.sh                          everything into data/ and runs/ of this folder
#   NUM_PROCESSES=2 bash run.sh          two training processes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Raw pairs -> shards: scenes of the picture world, captioned in English and five languages.
languages=(ar de hi vi zh)
crosslingual shards --source world --split train --num_samples "${NUM_SAMPLES:-2000}" \
  --languages en "${languages[@]}" --output_dir data/testbed/shards --overwrite

# Shards -> features: the states of both frozen text encoders, once; no picture is decoded.
altdiffusion features --config configs/testbed.yaml \
  --shards data/testbed/shards --features_dir data/testbed/features

# Features -> checkpoints and the adapter, in runs/altdiffusion-testbed.
bash scripts/single_node.sh --config configs/testbed.yaml "$@"

# Adapter -> pictures.
altdiffusion generate --adapter runs/altdiffusion-testbed/adapter --output_dir runs/altdiffusion-testbed/pictures \
  --prompt "ein großer roter Stern" "一颗大的红色星星"
