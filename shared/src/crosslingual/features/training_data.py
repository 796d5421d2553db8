"""Where training batches come from: features on disk, or shards through the frozen parts as they
come. Both give the same arrays, by the same flag.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from crosslingual.data.loader import ShardLoader
from crosslingual.features.compute import SampleParts, online_batches
from crosslingual.features.loader import FeatureLoader, check_fresh, is_features
from crosslingual.frozen.weights import resolve
from crosslingual.training.processes import Ranks, row_generators  # noqa: F401, its former place


@dataclass
class TrainingData:
    """Batches of arrays, and the empty prompt's states.

    Attributes:
        loader: of features or of shards.
        parts: what the samples of shards pass through.
        null: `english_states` (L, D), `english_pooled` (P,), `multilingual_states` (M, C), as far
            as the base and the method have them.
    """

    loader: FeatureLoader | ShardLoader
    parts: SampleParts
    null: dict[str, Tensor]

    def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Endless batches of the arrays of `parts.encode` from a micro-step on."""
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
        resolution: of the pictures; None where the method looks at captions alone.
        batch_size: samples a process and micro-step.
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
