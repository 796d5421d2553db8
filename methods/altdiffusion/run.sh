#!/usr/bin/env bash
# AltDiffusion from parallel text to judged pictures, in miniature, on the embedded models: every
# command, in order, and why. `altdiffusion demo` runs this file; its flags are the variables below.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   bash run.sh                                         # six minutes on two cores; no download
#   OUTPUT_DIR=/tmp/altdiffusion LANGUAGES="ja uk" NUM_PROCESSES=1 bash run.sh
#
# Each arrow of `parallel text -> text encoder` and of `pictures -> shards -> features -> UNet, stage
# by stage -> pipeline` is one command and one folder under $OUTPUT_DIR. The recipe of eighteen
# languages, an hour on two cores, is in configs/testbed_*.yaml with its commands.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

WORLD=${WORLD:-testbed}
[ "$WORLD" = testbed ] || exec bash "$HERE/demo_$WORLD.sh"

OUTPUT_DIR=${OUTPUT_DIR:-runs/altdiffusion-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
LANGUAGES=${LANGUAGES:-de zh}
NUM_TEXTS=${NUM_TEXTS:-4000}
NUM_SAMPLES=${NUM_SAMPLES:-1500}
NUM_MOTIF_SAMPLES=${NUM_MOTIF_SAMPLES:-600}
TEXT_STEPS=${TEXT_STEPS:-250}
CONCEPT_ALIGNMENT_STEPS=${CONCEPT_ALIGNMENT_STEPS:-270}
QUALITY_IMPROVEMENT_STEPS=${QUALITY_IMPROVEMENT_STEPS:-260}
NUM_PROMPTS=${NUM_PROMPTS:-16}
NUM_MOTIF_PROMPTS=${NUM_MOTIF_PROMPTS:-8}
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
read -ra languages <<<"en $LANGUAGES"
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
altdiffusion() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m altdiffusion "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m altdiffusion "$@"
  fi
}
shards() { # name, and options of the picture world
  crosslingual shards --source world --split train --seed "$SEED" --languages "${languages[@]}" \
    --output_dir "$OUTPUT_DIR/$1-shards" "${@:2}"
}

# --------------------------------------------------------------------------------------------------
# An earlier demo's folder is renamed; a folder that holds anything else is refused.
python -m crosslingual.cli.demo "$OUTPUT_DIR"

# Parallel text without pictures; general pictures; and motifs of each language among as many general
# pictures. A motif is captioned in its own language alone, and the English base has never seen it.
say "text, pictures and motifs in ${languages[*]}"
shards text --num_samples "$NUM_TEXTS" --pictures false
shards general --num_samples "$NUM_SAMPLES"
shards mixed --num_samples "$NUM_MOTIF_SAMPLES" --num_motif_samples "$NUM_MOTIF_SAMPLES"

# --------------------------------------------------------------------------------------------------
# Parallel text -> text encoder. The student reads a sentence in any language, English included, and
# learns CLIP's vector of the English one. The run's folder then holds a text encoder for the UNet,
# and an AltCLIP: `altdiffusion evaluate-retrieval` measures how well it finds pictures.
say "teacher learning: $TEXT_STEPS steps, no pictures"
altdiffusion train-text --config "$HERE/configs/testbed_text.yaml" --seed "$SEED" \
  --languages "${languages[@]}" --train_data "$OUTPUT_DIR/text-shards" \
  --output_dir "$OUTPUT_DIR/text" --learning_rate 2e-3 \
  --max_train_steps "$TEXT_STEPS" --checkpointing_steps "$TEXT_STEPS"

# --------------------------------------------------------------------------------------------------
# Shards -> features. VAE and the trained text encoder are frozen from here on: they run once. Ranks
# share the blocks; a second call continues where the first one stopped.
say "features: latents and text states, once"
for name in general mixed; do
  altdiffusion features --config "$HERE/configs/testbed_concept_alignment.yaml" --seed "$SEED" \
    --languages "${languages[@]}" --text_encoder "$OUTPUT_DIR/text/text_encoder" \
    --shards "$OUTPUT_DIR/$name-shards" --features_dir "$OUTPUT_DIR/$name-features"
done

# --------------------------------------------------------------------------------------------------
# Features -> UNet. Keys and values of cross-attention learn first, then the whole UNet, from the
# export of the stage before. Ctrl-C or a kill loses nothing: the same command with
# `--resume_from_checkpoint latest` takes the very steps that the whole run would have taken.
# Guidance tuning is left out: captions are dropped here in both stages.
stage() { # name, data, steps, and further settings
  altdiffusion train --config "$HERE/configs/testbed_$1.yaml" --seed "$SEED" \
    --languages "${languages[@]}" --text_encoder "$OUTPUT_DIR/text/text_encoder" \
    --train_data "$OUTPUT_DIR/$2-features" --output_dir "$OUTPUT_DIR/$1" \
    --max_train_steps "$3" --checkpointing_steps "$3" --adam_beta2 0.999 --ema_decay 0.98 "${@:4}"
}
say "concept alignment: keys and values of cross-attention, $CONCEPT_ALIGNMENT_STEPS steps"
stage concept_alignment general "$CONCEPT_ALIGNMENT_STEPS" --learning_rate 5e-3
say "quality improvement: the whole UNet, $QUALITY_IMPROVEMENT_STEPS steps"
stage quality_improvement mixed "$QUALITY_IMPROVEMENT_STEPS" \
  --unet "$OUTPUT_DIR/concept_alignment/pipeline"

# --------------------------------------------------------------------------------------------------
# Stages -> pictures, judged: held-out general prompts, and each language's own motif. The pipelines
# are stock diffusers'; `altdiffusion export --dtype fp16` writes one in half precision from any
# checkpoint, `altdiffusion generate --adapter FOLDER --prompt ...` draws your own prompts.
say "pictures: $NUM_PROMPTS held-out prompts a language, and its motif"
altdiffusion evaluate --output_dir "$OUTPUT_DIR" --languages "${languages[@]}" --seed "$SEED" \
  --num_prompts "$NUM_PROMPTS" --num_motif_prompts "$NUM_MOTIF_PROMPTS" \
  --adapters "$OUTPUT_DIR/concept_alignment/pipeline" "$OUTPUT_DIR/quality_improvement/pipeline"
say "done"
echo "all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png, $OUTPUT_DIR/motifs.png"
echo "pipeline: $OUTPUT_DIR/quality_improvement/pipeline"
