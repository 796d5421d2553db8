"""A trial's result line: recall by the shared definition, and what else a reader must know."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from crosslingual.evaluation.retrieval import recall_at_k, result_json
from crosslingual_benchmarks.datasets import RetrievalSet
from crosslingual_benchmarks.results import Result, check_result
from crosslingual_benchmarks.retrieval.embedders import Embedder
from crosslingual_benchmarks.retrieval.embeddings import collapse, embed_texts
from crosslingual_benchmarks.retrieval.trials import Trial

# I pictures, T texts, D width of the space


def score_trial(
    embedder: Embedder,
    images_ID: Tensor,
    trial: Trial,
    data: RetrievalSet,
    *,
    language: str,
    subset: str,
    batch_size: int,
    **common: Any,
) -> Result:
    """Recall@1/5/10 both ways of a trial, by `crosslingual.evaluation.retrieval.recall_at_k`.

    Args:
        embedder: of the texts.
        images_ID: rows of the trial's pictures.
        trial: pictures and texts.
        data: the dataset that the trial is of.
        language: of the texts.
        subset: which pictures of the gallery: `all`, or a name of `data.subsets`.
        batch_size: texts at a time.
        common: what further keywords `crosslingual.evaluation.retrieval.result_json` takes.

    Returns:
        The line, whose protocol holds captions, ties, split, subset and the gallery's pictures.

    Raises:
        ValueError: a text's row is no finite vector, or pictures and texts differ in width.
    """
    texts_TD = embed_texts(embedder, trial.texts, batch_size)
    recall = recall_at_k(images_ID, texts_TD, torch.tensor(trial.picture_of_text))
    names = [data.pictures[place].name for place in trial.places]
    content = json.dumps([names, trial.picture_of_text, trial.texts])
    result = result_json(
        recall,
        dataset=data.name,
        language=language,
        precision="fp32",
        dataset_sha256=data.sha256,
        captions_sha256=hashlib.sha256(content.encode()).hexdigest(),
        n_missing_images=trial.num_missing,
        n_untold_images=trial.num_untold,
        n_duplicate_texts=trial.num_duplicate_texts,
        warnings=[*collapse(images_ID, "pictures"), *collapse(texts_TD, f"texts in {language}")],
        **common,
    )
    result["protocol"] |= {
        "split": data.galleries[language].split,
        "subset": subset,
        "gallery": len(trial.places),
    }
    check_result(result, "this result")
    return result
