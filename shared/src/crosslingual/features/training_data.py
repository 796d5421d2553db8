"""Where training batches come from: features on disk, or shards that pass the frozen parts as they
are read. Both give the same arrays, by the same flag.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import parse_key_map
from crosslingual.features.compute import SampleParts
from crosslingual.features.loader import FeatureLoader, check_fresh, is_features
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
            yield batch if is_stored else {**self.parts.encode(batch), "keys": batch["keys"]}

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """The sample keys of a batch, for messages."""
        return batch["keys"] if "keys" in batch else self.loader.keys(batch["rows"])


def open_training_data(
    train_data: str,
    parts: SampleParts,
    *,
    resolution: int | None,
    batch_size: int,
    seed: int,
    ranks: Ranks,
    num_workers: int = 0,
    key_map: Mapping[str, str] | None = None,
) -> TrainingData:
    """Opens a folder of features, or shards.

    Args:
        train_data: the folder, or whatever `crosslingual.data.shards.expand_shards` takes.
        parts: what samples pass, or passed, through.
        resolution: edge of the pictures in pixels; None where captions alone train.
        batch_size: samples of a process and micro-step.
        seed: of the order.
        ranks: this process among the others.
        num_workers: processes that decode shards.
        key_map: JSON key to language, for captions of others' shards.

    Raises:
        FileNotFoundError, ValueError: nothing there, or features that were made of other parts.
    """
    if not train_data:
        raise ValueError(
            "train_data is not set: give a folder of shards, or of features made by the "
            "`features` verb"
        )
    if not parts.languages:
        raise ValueError(
            "languages is not set: name those whose captions train, such as --languages de fr"
        )
    place = {"batch_size": batch_size, "seed": seed, "rank": ranks.rank}
    place["world_size"] = ranks.world_size
    if is_features(resolve(train_data)):
        features = FeatureLoader(train_data, **place)
        made_of = parts.made_of | ({"resolution": resolution} if resolution else {})
        check_fresh(features.index, made_of, train_data)
        return TrainingData(features, parts, features.null())
    shards = ShardLoader(
        train_data, num_workers=num_workers, resolution=resolution, key_map=key_map, **place
    )
    return TrainingData(shards, parts, parts.null())


def open_run_data(
    settings: Any, parts: SampleParts, ranks: Ranks, *, has_pictures: bool = True
) -> TrainingData:
    """`open_training_data` as a run's settings say.

    Args:
        settings: the run's, such as `training.settings.CaptionSettings`; with pictures they have a
            `resolution`.
        parts: what samples pass, or passed, through.
        ranks: this process among the others.
        has_pictures: whether the method looks at pictures, and not at captions alone.

    Raises:
        FileNotFoundError, ValueError: as `open_training_data`.
    """
    return open_training_data(
        settings.train_data,
        parts,
        resolution=settings.resolution if has_pictures else None,
        batch_size=settings.train_batch_size,
        seed=settings.seed,
        ranks=ranks,
        num_workers=settings.dataloader_num_workers,
        key_map=parse_key_map(settings.caption_keys) or None,
    )


def validation_batch(
    settings: RunSettings, parts: SampleParts | None = None
) -> dict[str, Tensor] | None:
    """The first rows of `validation_data`, None where nothing is validated.

    Args:
        settings: of the run.
        parts: what the pictures and captions of the features must have passed through; not checked
            if None.

    Raises:
        FileNotFoundError, ValueError: `validation_data` is no folder of such features.
    """
    if not settings.validation_steps:
        return None
    loader = FeatureLoader(settings.validation_data, batch_size=1, seed=0)
    if parts is not None:
        made_of = parts.made_of | {"resolution": settings.resolution}
        check_fresh(loader.index, made_of, settings.validation_data)
    return loader.rows(torch.arange(min(settings.validation_rows, loader.index.num_rows)))
