"""The pass over shards that computes features: stores what a method's parts make of a batch.
`TrainingData` hands the same straight on where training reads shards.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from crosslingual.data.index import INDEX
from crosslingual.data.index import read_index as read_shard_index
from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import parse_key_map
from crosslingual.features.blocks import join, save_block
from crosslingual.features.loader import NULL, claim, finish_features
from crosslingual.features.ragged import Ragged
from crosslingual.training.processes import Ranks


class SampleParts(Protocol):
    """The frozen parts that a method's samples pass through, such as `FrozenParts`.

    Attributes:
        languages: whose captions are encoded.
    """

    languages: list[str]

    @property
    def made_of(self) -> dict[str, Any]:
        """What the arrays depend on, `languages` among it; it loads no model."""

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor | Ragged]:
        """Arrays of a loader's batch, a row for each sample."""

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt; empty where a method drops no captions."""


def write_features(
    parts: SampleParts,
    shards: str,
    output_dir: str,
    *,
    ranks: Ranks,
    resolution: int | None,
    batch_size: int = 32,
    batches_per_block: int = 16,
    num_workers: int = 0,
    key_map: Mapping[str, str] | None = None,
) -> Path:
    """Writes the features of all samples of `shards`. Ranks share the blocks; blocks that are
    complete stay, so that a second run continues the first.

    Args:
        parts: what the samples pass through.
        shards: as `crosslingual.data.shards.expand_shards` takes them.
        output_dir: the features' folder.
        ranks: this process among those that share the blocks.
        resolution: edge of the pictures in pixels; None leaves them out.
        batch_size: samples at a time.
        batches_per_block: batches in a file.
        num_workers: processes that decode.
        key_map: JSON key to language, for captions of others' shards.

    Returns:
        The folder.

    Raises:
        ValueError: a setting is missing, or the folder holds features of something else.
    """
    if not (shards and output_dir and parts.languages):
        raise ValueError("`features` needs --shards, --features_dir and --languages")
    loader = ShardLoader(
        shards,
        batch_size=batch_size,
        seed=0,
        resolution=resolution,
        num_workers=num_workers,
        shuffle=False,
        key_map=key_map,
    )
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    of_run = {"resolution": resolution, "shards": shards_hash(shards), "batch_size": batch_size}
    claim(folder, {**parts.made_of, **of_run})
    firsts = range(0, len(loader), batches_per_block)
    for number in range(ranks.rank, len(firsts), ranks.world_size):
        path = folder / f"block-{number:05d}.safetensors"
        if path.exists():
            continue
        pieces, keys = [], []
        num_batches = min(batches_per_block, len(loader) - firsts[number])
        for batch in islice(loader.batches(firsts[number]), num_batches):
            pieces.append(parts.encode(batch))
            keys += batch["keys"]
        save_block(path, join(pieces), keys)
    if ranks.rank == 0:
        save_block(folder / NULL, parts.null(), [])
    if ranks.world_size > 1:
        torch.distributed.barrier()
    if ranks.rank == 0:
        index = finish_features(folder)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(
            f"{folder}: {index.num_rows} samples, {len(index.languages)} languages, {size:.1f} MiB"
        )
    return folder


def write_run_features(
    settings: Any, parts: SampleParts, ranks: Ranks, *, has_pictures: bool = True
) -> Path:
    """`write_features` as the settings of a `features` verb say, which also hold a training run's.

    Args:
        settings: a `training.settings.FeaturesSettings` that is a `DiffusionSettings` as well.
        parts: what the samples pass through.
        ranks: this process among those that share the blocks.
        has_pictures: whether the method looks at pictures, and not at captions alone.
    """
    return write_features(
        parts,
        settings.shards,
        settings.features_dir,
        ranks=ranks,
        resolution=settings.resolution if has_pictures else None,
        batch_size=settings.encode_batch_size,
        num_workers=settings.dataloader_num_workers,
        key_map=parse_key_map(settings.caption_keys) or None,
    )


def shards_hash(shards: str) -> str:
    """The hash in the shards' own index, or their names where they have no index, as shards of
    others.
    """
    has_index = (Path(shards) / INDEX).is_file()
    return str(read_shard_index(shards)["sha256"]) if has_index else shards
