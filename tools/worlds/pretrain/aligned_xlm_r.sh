#!/usr/bin/env bash
# Makes testbed:xlm-r-aligned, the encoder with which MuLan's demo reads other languages: testbed:xlm-r after
# mCLIP's stage 1 on captions of the picture world in all eighteen languages. It sees no picture.
#
#   bash tools/worlds/pretrain/aligned_xlm_r.sh [WORK]     # an environment with `pip install -e 'methods/mclip[demo]'`
#
# About an hour on one x86 core at 2.5 GHz. Two things make translations interchangeable token by token: pairs
# of every language with every other (`pairs: all`), not only with English, and captions of all four relations
# (`--distinct` draws scenes in their canonical form, which is never "right of" or "below"). The shipped weights
# came from this sequence, whose first two runs of step b lack one or both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
work=${1:-.work/aligned_xlm_r}
python=${PYTHON:-python}
target=tools/worlds/src/crosslingual_worlds/drawn/weights/xlm-r-aligned
configs=methods/mclip/configs
languages="ar de en es fr hi it ja ko nl pl pt ru th tr uk vi zh"
export OMP_NUM_THREADS=1
mkdir -p "$work"

text() { # name, number of scenes, seed, pairs of languages, options
  local name=$1 count=$2 seed=$3 pairs=$4
  shift 4
  # shellcheck disable=SC2086
  crosslingual shards --source world --pictures false --num_samples "$count" --seed "$seed" \
    --languages $languages --output_dir "$work/$name-shards" --overwrite "$@"
  mclip tokenize --train_data "$work/$name-shards" --pairs "$pairs" --tokens_dir "$work/$name-tokens"
}
step_b() { # where it starts, name of the text, pairs, steps, options
  local start=$1 name=$2 pairs=$3 steps=$4
  shift 4
  mclip train-encoder --config "$configs/testbed_step_b.yaml" --pairs "$pairs" \
    --train_data "$work/$name-tokens" --translation_model "$work/$start/translation" \
    --train_batch_size 64 --max_train_steps "$steps" --lr_warmup_steps 50 \
    --checkpointing_steps 250 "$@"
}

text english 12000 1 en-centric --distinct
mclip train-encoder --config "$configs/testbed_step_a.yaml" --train_data "$work/english-tokens" \
  --output_dir "$work/a" --max_train_steps 200 --checkpointing_steps 200
step_b a english en-centric 2500 --output_dir "$work/b1"
text distinct 6000 3 all --distinct
step_b b1 distinct all 2000 --output_dir "$work/b2"
text mixed 8000 5 all
step_b b2 mixed all 2500 --output_dir "$work/b3"
step_b b3 mixed all 3000 --output_dir "$work/b4" --seed 1

# fp16, as all embedded weights are.
"$python" - "$work/b4/translation/encoder" "$target" <<'PY'
import sys

import torch
from transformers import AutoTokenizer, XLMRobertaModel

source, target = sys.argv[1:]
XLMRobertaModel.from_pretrained(source, dtype=torch.float16, add_pooling_layer=False).save_pretrained(target)
AutoTokenizer.from_pretrained(source).save_pretrained(target)
PY
ls -l "$target"
