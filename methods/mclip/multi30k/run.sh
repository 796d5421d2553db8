#!/usr/bin/env bash
# Stage 1 on real sentences: Multi30K's captions in English, German, French and Czech, a small XLM-R
# of their own, and a table of how well sentences find their translations. An hour on two busy cores.
#
#   pip install -c ../../constraints.txt -e '.[test]'   # scikit-learn is for the TF-IDF baseline
#   git clone https://github.com/multi30k/dataset ~/multi30k
#   MULTI30K=~/multi30k bash multi30k/run.sh
#   MULTI30K=~/multi30k OUT=/tmp/multi30k NUM_PROCESSES=1 bash multi30k/run.sh
#
# The script reads `data/task1` of MULTI30K. If it is stopped, the same command continues: complete
# parts stay, and training resumes from its last checkpoint.
# Tables go to $OUT/tables, their numbers to $OUT/results/text_retrieval.jsonl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${MULTI30K:?the folder of a clone of github.com/multi30k/dataset: MULTI30K=FOLDER bash multi30k/run.sh}"
OUT=${OUT:-runs/multi30k}
NUM_PROCESSES=${NUM_PROCESSES:-2}
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false  # a thread a process
launch() { torchrun --standalone --nproc_per_node "$NUM_PROCESSES" "$@"; }

# A table under a name, unless it is there.
table() {
  local name=$1
  shift
  [ -f "$OUT/tables/$name.md" ] && return
  mkdir -p "$OUT/tables"
  echo "== $name"
  "$@" --data "$OUT/shards/test_2016_flickr" --languages en de fr cs --output_dir "$OUT/results" \
    | tee "$OUT/tables/$name.partial"
  mv "$OUT/tables/$name.partial" "$OUT/tables/$name.md"
}

# A step of stage 1, begun or gone on with, unless its translation model is there.
step() {
  local name=$1
  shift
  [ -d "$OUT/$name/translation" ] && return
  local resume=()
  [ -f "$OUT/$name/latest" ] && resume=(--resume_from_checkpoint latest)
  launch -m mclip train-encoder "$@" --train_data "$OUT/tokens" --validation_data "$OUT/shards/val" \
    --output_dir "$OUT/$name" ${resume[@]+"${resume[@]}"}
}

# ---------------------------------------------------------------------------------------------------
# Text -> shards: 29,000 sentences, each in four languages, and 1,000 that nothing below trains on.
for split in train val test_2016_flickr; do
  [ -f "$OUT/shards/$split/index.json" ] || crosslingual shards --source multi30k \
    --input "$MULTI30K" --split "$split" --output_dir "$OUT/shards/$split"
done

# ---------------------------------------------------------------------------------------------------
# What spelling alone finds: names, numbers and kindred words.
table tfidf python multi30k/baselines.py --train_data "$OUT/shards/train"

# ---------------------------------------------------------------------------------------------------
# Shards -> a vocabulary of 8,000 pieces, a random XLM-R, and the same pretrained on each language's
# text for itself: no translation is seen. 18 minutes on two busy cores.
launch multi30k/make_encoder.py --train_data "$OUT/shards/train" --output_dir "$OUT/encoder"
table untrained mclip evaluate-text --encoder "$OUT/encoder/untrained"
table pretrained mclip evaluate-text --encoder "$OUT/encoder/pretrained"

# ---------------------------------------------------------------------------------------------------
# Shards -> tokens, once for both steps: pairs with English only, as published. German to Czech is
# found, or not, by way of English.
mclip tokenize --train_data "$OUT/shards/train" --text_encoder "$OUT/encoder/pretrained" \
  --tokens_dir "$OUT/tokens"

# ---------------------------------------------------------------------------------------------------
# Step a: a decoder learns to translate from what the frozen encoder says. 8 minutes. The encoder is
# still the pretrained one, and so is its retrieval; what is new is BLEU.
step step-a --config configs/multi30k_step_a.yaml --text_encoder "$OUT/encoder/pretrained"
table step-a mclip evaluate-text --translation_model "$OUT/step-a/translation"

# ---------------------------------------------------------------------------------------------------
# Step b: the encoder learns too, by translation and by the contrast of sentences with their
# translations. 31 minutes.
step step-b --config configs/multi30k_step_b.yaml --translation_model "$OUT/step-a/translation"
table step-b mclip evaluate-text --translation_model "$OUT/step-b/translation"

tail -n +1 "$OUT"/tables/{tfidf,untrained,pretrained,step-a,step-b}.md
