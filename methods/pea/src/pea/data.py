"""Where training batches come from: features on disk, or shards through the frozen parts as they
come.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crosslingual.encoders import resolve
from crosslingual.feature_pass import FrozenParts, online_batches
from crosslingual.features import FeatureLoader, check_fresh, is_features
from crosslingual.loader import ShardLoader
from crosslingual.processes import Ranks
from crosslingual.records import parse_key_map
from pea.config import TrainSettings


def key_map(settings: TrainSettings) -> dict[str, str] | None:
    """`caption_keys` as a mapping of JSON key to language, None where there are none."""
    return parse_key_map(settings.caption_keys) or None


def frozen_parts(settings: TrainSettings, device: torch.device) -> FrozenParts:
    """The parts whose outputs PEA trains on."""
    return FrozenParts(
        settings.pretrained_model_name_or_path,
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        settings.revision,
        settings.text_encoder_revision,
        device,
    )


@dataclass
class TrainingData:
    """Batches of arrays, and the empty prompt's states."""

    loader: FeatureLoader | ShardLoader
    parts: FrozenParts | None
    null: dict[str, Tensor]

    def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Endless batches from a micro-step on."""
        if isinstance(self.loader, FeatureLoader):
            return self.loader.batches(start_step)
        return online_batches(self.parts, self.loader, start_step)

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """The sample keys of a batch, for messages."""
        return (
            self.loader.keys(batch["rows"])
            if isinstance(self.loader, FeatureLoader)
            else batch["keys"]
        )


def open_data(settings: TrainSettings, ranks: Ranks) -> TrainingData:
    """Opens `train_data`, features or shards.

    Raises:
        FileNotFoundError, ValueError: nothing there, or features that were made of other parts.
    """
    if not settings.train_data:
        raise ValueError(
            "train_data is not set: give a folder of shards, or of features made by `pea features`"
        )
    if not settings.languages:
        raise ValueError(
            "languages is not set: name those whose captions train, such as --languages de fr"
        )
    place = {"batch_size": settings.train_batch_size, "seed": settings.seed, "rank": ranks.rank}
    place["world_size"] = ranks.world_size
    if is_features(resolve(settings.train_data)):
        loader = FeatureLoader(settings.train_data, **place)
        made_of = {
            "base": settings.pretrained_model_name_or_path,
            "revision": settings.revision,
            "encoder": settings.text_encoder,
            "encoder_revision": settings.text_encoder_revision,
            "resolution": settings.resolution,
            "languages": settings.languages,
        }
        check_fresh(loader.index, made_of, settings.train_data)
        return TrainingData(loader, None, loader.null())
    parts = frozen_parts(settings, ranks.device)
    shards = ShardLoader(
        settings.train_data,
        num_workers=settings.dataloader_num_workers,
        resolution=settings.resolution,
        languages=None,
        key_map=key_map(settings),
        **place,
    )
    return TrainingData(shards, parts, parts.null())
