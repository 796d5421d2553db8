"""The plain baseline of `mclip evaluate-text`: sentences as TF-IDF of character n-grams.

python multi30k/baselines.py --train_data runs/multi30k/shards/train \
    --data runs/multi30k/shards/test_2016_flickr --output_dir runs/multi30k/tfidf

N-grams of 2 to 5 characters within words, lower case, fitted on the training text of all languages:
names, numbers and kindred words give translations away, and nothing else does.
"""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from make_encoder import read_texts
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from crosslingual.cli.verbs import run_verb
from mclip.stage1.evaluate import read_parallel_texts, report


@dataclass
class BaselineSettings:
    """Settings of `baselines.py`.

    Attributes:
        train_data: shards whose captions the weights of n-grams are counted on.
        data: shards with captions in the languages.
        output_dir: where text_retrieval.jsonl goes.
        languages: to test.
    """

    train_data: str
    data: str
    output_dir: str
    languages: list[str] = field(default_factory=lambda: ["en", "de", "fr", "cs"])


def dense_pair(one_NF: csr_matrix, other_NF: csr_matrix) -> tuple[Tensor, Tensor]:
    """Two sparse matrices as small dense ones with the same cosines.

    Only n-grams that both have count in a product. One column a matrix holds what the rest gave to
    a row's length, so that rows stay unit vectors; the other matrix is 0 there.

    Args:
        one_NF: unit rows.
        other_NF: unit rows.

    Returns:
        Two fp32 matrices (N, C + 2).
    """
    is_shared_F = (one_NF.getnnz(axis=0) > 0) & (other_NF.getnnz(axis=0) > 0)
    dense = []
    for place, matrix in enumerate((one_NF, other_NF)):
        kept_NC = torch.from_numpy(matrix[:, is_shared_F].toarray())
        rest_N2 = torch.zeros(len(kept_NC), 2, dtype=kept_NC.dtype)
        rest_N2[:, place] = (1 - kept_NC.square().sum(dim=1)).clamp(min=0).sqrt()
        dense.append(torch.cat([kept_NC, rest_N2], dim=1).float())
    return dense[0], dense[1]


def evaluate_baseline(settings: BaselineSettings) -> dict[str, Any]:
    """Prints the table of `mclip evaluate-text`, for TF-IDF."""
    started = time.perf_counter()
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float64
    )
    vectorizer.fit(read_texts(settings.train_data, settings.languages))
    texts = read_parallel_texts(settings.data, settings.languages)
    matrices = {language: vectorizer.transform(part) for language, part in texts.items()}
    return report(
        settings,
        "character n-grams, TF-IDF",
        texts,
        lambda one, other: dense_pair(matrices[one], matrices[other]),
        started,
    )


if __name__ == "__main__":
    sys.exit(run_verb("baselines.py", BaselineSettings, evaluate_baseline))
