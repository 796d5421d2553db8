#!/usr/bin/env bash
# AltDiffusion from parallel text to judged pictures in eighteen languages, on the embedded models: every
# command, in order, and why.
#
#   pip install -c ../../constraints.txt -e .     # once, in an environment of your own
#   bash run.sh                                   # an hour on two cores
#   OUT=/tmp/altdiffusion NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `parallel text -> text encoder` and of `pictures -> shards -> features -> UNet, stage by
# stage -> pipeline` is one command and one folder under $OUT. `altdiffusion demo` does the same in
# miniature with a table at the end; this file is to be read and changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

OUT=${OUT:-runs/testbed}
NUM_PROCESSES=${NUM_PROCESSES:-2}
export OMP_NUM_THREADS=1  # a thread a process
languages=(ar de en es fr hi it ja ko nl pl pt ru th tr uk vi zh)
launch() { torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m "$@"; }

# ---------------------------------------------------------------------------------------------------
# Parallel text -> text encoder. The student reads a sentence in any language, English included, and
# learns CLIP's vector of the English one. $OUT/text holds a text encoder for the UNet and an AltCLIP.
crosslingual shards --source world --split train --pictures false --num_samples 20000 --seed 0 \
  --languages "${languages[@]}" --output_dir "$OUT/text-shards" --overwrite
launch altdiffusion.train_text --config configs/testbed_text.yaml \
  --train_data "$OUT/text-shards" --output_dir "$OUT/text"

# How good is it? Held-out pictures found by captions, with CLIP itself beside it.
crosslingual shards --source world --split test --distinct --num_samples 500 --seed 2 \
  --languages "${languages[@]}" --output_dir "$OUT/test-shards" --overwrite
for model in testbed:clip "$OUT/text/altclip"; do
  altdiffusion evaluate-retrieval --model "$model" --dataset "$OUT/test-shards" \
    --output_dir "$OUT" --languages "${languages[@]}"
done

# ---------------------------------------------------------------------------------------------------
# Pictures -> shards -> features. VAE and the trained text encoder are frozen from here on: they run once.
# The mixed set holds the languages' motifs too, each captioned in its own language alone.
crosslingual shards --source world --split train --num_samples 4000 --seed 3 \
  --languages "${languages[@]}" --output_dir "$OUT/general-shards" --overwrite
crosslingual shards --source world --split train --num_samples 3000 --num_motif_samples 3600 --seed 4 \
  --languages "${languages[@]}" --output_dir "$OUT/mixed-shards" --overwrite
for name in general mixed; do
  launch altdiffusion.features --config configs/testbed_concept_alignment.yaml \
    --text_encoder "$OUT/text/text_encoder" \
    --shards "$OUT/$name-shards" --features_dir "$OUT/$name-features"
done

# ---------------------------------------------------------------------------------------------------
# Features -> UNet. Keys and values of cross-attention first, then the whole UNet, then with a tenth of
# the captions empty; each stage goes on from the former one's export. Ctrl-C or a kill loses nothing:
# the same command with `--resume_from_checkpoint latest` takes the very same steps.
stage() { # name, data, former stage
  local former=()
  [ $# -lt 3 ] || former=(--unet "$OUT/$3/pipeline")
  launch altdiffusion.train --config "configs/testbed_$1.yaml" \
    --text_encoder "$OUT/text/text_encoder" --train_data "$OUT/$2-features" \
    --output_dir "$OUT/$1" ${former[@]+"${former[@]}"}
}
stage concept_alignment general
stage quality_improvement mixed concept_alignment
stage guidance_tuning mixed quality_improvement

# ---------------------------------------------------------------------------------------------------
# Stages -> pictures, judged: general prompts, and each language's own motif. Writes accuracy.json,
# table.md, grid.png and motifs.png.
launch altdiffusion.evaluate --output_dir "$OUT" --languages "${languages[@]}" --num_prompts 24 \
  --adapters "$OUT/concept_alignment/pipeline" "$OUT/quality_improvement/pipeline" \
  "$OUT/guidance_tuning/pipeline"
altdiffusion generate --adapter "$OUT/guidance_tuning/pipeline" --output_dir "$OUT/pictures" \
  --prompt "ein großer roter Stern" "一颗红色的大五角星"

# For stock diffusers, in half precision: no remote code, no package of ours.
altdiffusion export --checkpoint "$OUT/guidance_tuning" --output_dir "$OUT/pipeline" --dtype fp16

echo "pipeline $OUT/pipeline, table $OUT/table.md, pictures $OUT/grid.png and $OUT/motifs.png"
