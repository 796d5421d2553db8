"""Where training batches come from: features on disk, or shards that pass the frozen parts as they
are read. Both give the same arrays, by the same flag.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crosslingual.data.index import NUM_COUNTED
from crosslingual.data.languages import describe_counts, match_languages
from crosslingual.data.loader import ShardLoader
from crosslingual.features.compute import SampleParts, open_shards
from crosslingual.features.loader import FeatureLoader, is_features
from crosslingual.frozen.tokens import on_cut
from crosslingual.frozen.weights import resolve
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import RunSettings


@dataclass
class TrainingData:
    """Batches of arrays.

    Attributes:
        loader: of features or of shards.
        parts: what the samples of shards pass through.
        null: the empty prompt's `english_states` (L, D), `english_pooled` (P,) and
            `multilingual_states` (M, C), those that the base and the method have.
    """

    loader: FeatureLoader | ShardLoader
    parts: SampleParts
    null: dict[str, Tensor]

    def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Endless batches of the arrays of `parts.encode` from a micro-step on."""
        for batch in self.loader.batches(start_step):
            is_stored = isinstance(self.loader, FeatureLoader)
            with on_cut(lambda cut: _say_once(cut.max_length)):
                arrays = batch if is_stored else self.parts.encode(batch) | {"keys": batch["keys"]}
            yield arrays

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """The sample keys of a batch, for messages."""
        return batch["keys"] if "keys" in batch else self.loader.keys(batch["rows"])


def open_run_data(
    settings: Any, parts: SampleParts, ranks: Ranks, *, has_pictures: bool = True
) -> TrainingData:
    """Opens the settings' `train_data`, a folder of features or shards, whose samples pass, or
    passed, through `parts`. Methods that look at captions alone say that there are no pictures.
    """
    train_data = settings.train_data
    if not train_data:
        raise ValueError(
            "train_data is not set: give a folder of shards, or of features made by the "
            "`features` verb"
        )
    if not parts.languages:
        raise ValueError(
            "languages is not set: name those whose captions train, such as --languages de fr"
        )
    place = {"batch_size": settings.train_batch_size, "seed": settings.seed}
    place |= {"rank": ranks.rank, "world_size": ranks.world_size}
    if is_features(resolve(train_data)):
        made_of = parts.made_of | ({"resolution": settings.resolution} if has_pictures else {})
        features = FeatureLoader(train_data, **place, made_of=made_of, verify=settings.verify_data)
        line = _check_languages(features, parts.languages)
        if ranks.rank == 0:
            print(line)
        return TrainingData(features, parts, features.null())
    shards = open_shards(settings, train_data, parts, has_pictures, **place)
    if ranks.rank == 0:
        print(shards.language_line)
    return TrainingData(shards, parts, parts.null())


def _check_languages(features: FeatureLoader, languages: list[str]) -> str:
    """A line with the number of samples a language, each of which some sample must have. It reads
    no more blocks than that takes, and `NUM_COUNTED` rows.
    """
    counts, num_rows = Counter(), 0
    for block in features.index.blocks:
        rows = torch.arange(num_rows, num_rows + block["num_rows"])
        names = ["has_language", *(["has_english"] if "en" not in languages else [])]
        has = features.rows(rows, names)
        counts.update(dict(zip(languages, has["has_language"].sum(dim=0).tolist(), strict=True)))
        if "en" not in languages:
            counts["en"] += int(has["has_english"].sum())
        num_rows += len(rows)
        if num_rows >= NUM_COUNTED and all(counts[name] for name in languages):
            break
    match_languages(languages, [name for name, count in counts.items() if count])
    return describe_counts(languages, counts, num_rows, features.index.num_rows)


@functools.cache
def _say_once(max_length: int) -> None:
    print(f"captions longer than {max_length} tokens are cut: `features` counts them by language")


def validation_batch(
    settings: RunSettings, parts: SampleParts | None = None
) -> dict[str, Tensor] | None:
    """The first rows of `validation_data`, None where nothing is validated. With `parts`, the
    features must be of pictures and captions that passed through them.
    """
    if not settings.validation_steps:
        return None
    made_of = None if parts is None else parts.made_of | {"resolution": settings.resolution}
    loader = FeatureLoader(
        settings.validation_data,
        batch_size=1,
        seed=0,
        made_of=made_of,
        verify=settings.verify_data,
    )
    return loader.rows(torch.arange(min(settings.validation_rows, loader.index.num_rows)))
