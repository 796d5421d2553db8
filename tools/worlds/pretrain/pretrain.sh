#!/usr/bin/env bash
# Pretrains the embedded models from nothing and writes them into the package.
#
#   bash tools/worlds/pretrain/pretrain.sh [WORK]      # WORK holds checkpoints; run it again to go on
#
# About an hour and a half on one x86 core at 2.5 GHz, and hours more for the SD 3; each part prints its progress and its
# measured quality. Needs an environment with `pip install -e tools/worlds`. Two parts that do not need
# one another may run at the same time: (vae), (clip), (xlm_r); the UNet needs the first two.
set -euo pipefail
scripts=$(dirname "${BASH_SOURCE[0]}")
work=${1:-$scripts/../../../.work/testbed}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$scripts"
python=${PYTHON:-python}
export OMP_NUM_THREADS=1

# 1. The VAE learns to encode scenes and doodles: what a latent can hold bounds all that follows.
"$python" vae.py --work "$work"
# 2. The CLIP: its text tower learns to say the scene, then the vision tower is trained against it.
"$python" clip.py --work "$work"
# 3. The UNet learns to draw what the text states say, from cached latents.
"$python" unet.py --work "$work"
# 4. The XLM-R reads captions of all languages; it never sees a picture or a translation.
"$python" xlm_r.py --work "$work"
# 5. fp16 folders in the true formats.
"$python" export.py --work "$work"
# 6. The SD 3 learns on that VAE and that text tower, and writes its own folder.
"$python" sd3.py --work "$work"
# 7. Every figure of README.md, measured.
"$python" measure.py
