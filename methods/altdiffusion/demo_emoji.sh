#!/usr/bin/env bash
# AltDiffusion on real pictures and names: its stages, the last of which learns a culture's emoji.
# `altdiffusion demo --world emoji` runs this file; its flags are the variables below. Pictures, names and the
# encoder are fetched once (110 MB, into $CROSSLINGUAL_CACHE); what they are, and what a method may read
# of them: tools/worlds/src/crosslingual_worlds/emoji/README.md. `run.sh` says why each command is there.
#
#   pip install -c ../../constraints.txt -e '.[demo]'   # once, in an environment of your own
#   pip install -e '../../tools/worlds[emoji]'
#   WORLD=emoji bash run.sh                             # took 574 s on two cores, beside other work
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUTPUT_DIR=${OUTPUT_DIR:-runs/altdiffusion-demo}
NUM_PROCESSES=${NUM_PROCESSES:-$(($(env -u OMP_NUM_THREADS nproc) < 2 ? 1 : 2))}
LANGUAGES=${LANGUAGES:-ja zh}
NUM_MOTIF_SAMPLES=${NUM_MOTIF_SAMPLES:-300}
TEXT_STEPS=${TEXT_STEPS:-150}
CONCEPT_ALIGNMENT_STEPS=${CONCEPT_ALIGNMENT_STEPS:-200}
QUALITY_IMPROVEMENT_STEPS=${QUALITY_IMPROVEMENT_STEPS:-200}
NUM_PROMPTS=${NUM_PROMPTS:-24}
NUM_MOTIF_PROMPTS=${NUM_MOTIF_PROMPTS:-22}
read -ra languages <<<"en $LANGUAGES"
SEED=${SEED:-0}

export OMP_NUM_THREADS=1  # one thread for each process
SECONDS=0
say() { printf '[%5d s] %s\n' "$SECONDS" "$*"; }
altdiffusion() {
  if [ "$NUM_PROCESSES" = 1 ]; then python -m altdiffusion "$@"; else
    torchrun --standalone --nproc_per_node "$NUM_PROCESSES" -m altdiffusion "$@"
  fi
}

crosslingual-worlds fetch emoji
python -m crosslingual.cli.demo "$OUTPUT_DIR"

shards() { # name, and options of the source
  crosslingual shards --source emoji --split train --with_english true --seed "$SEED" \
    --languages "${languages[@]}" --output_dir "$OUTPUT_DIR/$1-shards" "${@:2}"
}
say "pictures, and emoji of the languages' cultures, in ${languages[*]}"
shards general
shards mixed --num_culture_samples "$NUM_MOTIF_SAMPLES"
say "teacher learning: $TEXT_STEPS steps, no pictures"
altdiffusion train-text --config "$HERE/configs/emoji_text.yaml" --seed "$SEED" \
  --languages "${languages[@]}" --train_data "$OUTPUT_DIR/general-shards" \
  --output_dir "$OUTPUT_DIR/text" \
  --max_train_steps "$TEXT_STEPS" --checkpointing_steps "$TEXT_STEPS"
say "features: latents and text states, once"
for name in general mixed; do
  altdiffusion features --config "$HERE/configs/emoji.yaml" --seed "$SEED" \
    --languages "${languages[@]}" --text_encoder "$OUTPUT_DIR/text/text_encoder" \
    --shards "$OUTPUT_DIR/$name-shards" --features_dir "$OUTPUT_DIR/$name-features"
done
stage() { # name, data, steps, and further settings
  altdiffusion train --config "$HERE/configs/emoji.yaml" --stage "$1" --seed "$SEED" \
    --languages "${languages[@]}" --text_encoder "$OUTPUT_DIR/text/text_encoder" \
    --train_data "$OUTPUT_DIR/$2-features" --output_dir "$OUTPUT_DIR/$1" \
    --max_train_steps "$3" --checkpointing_steps "$3" "${@:4}"
}
say "concept alignment: keys and values of cross-attention, $CONCEPT_ALIGNMENT_STEPS steps"
stage concept_alignment general "$CONCEPT_ALIGNMENT_STEPS"
say "quality improvement: the whole UNet, $QUALITY_IMPROVEMENT_STEPS steps"
stage quality_improvement mixed "$QUALITY_IMPROVEMENT_STEPS" --learning_rate 1.5e-3 \
  --unet "$OUTPUT_DIR/concept_alignment/pipeline"
say "pictures: $NUM_PROMPTS names of split test a language, and emoji of its culture"
altdiffusion evaluate --output_dir "$OUTPUT_DIR" --languages "${languages[@]}" --seed "$SEED" \
  --num_prompts "$NUM_PROMPTS" --num_motif_prompts "$NUM_MOTIF_PROMPTS" \
  --adapters "$OUTPUT_DIR/concept_alignment/pipeline" "$OUTPUT_DIR/quality_improvement/pipeline"
say "done"
echo "all in $SECONDS s" | tee -a "$OUTPUT_DIR/table.md"
echo "pictures: $OUTPUT_DIR/grid.png, $OUTPUT_DIR/motifs.png"
echo "pipeline: $OUTPUT_DIR/quality_improvement/pipeline"
