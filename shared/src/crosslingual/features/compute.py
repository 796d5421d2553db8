"""The pass over shards that computes features, and the same computation online, batch by batch.

`compute_features` stores what a method's parts make of a batch and `online_batches` hands it
straight on, so that training on shards and on features sees the same.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from crosslingual.data.loader import ShardLoader
from crosslingual.data.shards import read_index as read_shard_index
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
        """What the arrays depend on, `languages` among it; nothing is loaded for it."""

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor | Ragged]:
        """Arrays of a loader's batch, a row a sample."""

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt; empty where a method drops no captions."""


def compute_features(
    parts: SampleParts,
    shards: str,
    output_dir: str | Path,
    *,
    resolution: int | None,
    batch_size: int = 32,
    batches_per_block: int = 16,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    key_map: Mapping[str, str] | None = None,
) -> Path:
    """Writes the features of all samples of `shards`; ranks share the blocks, and complete blocks
    are kept.

    Once all ranks are through, `finish_features` completes the folder.

    Args:
        parts: what the samples pass through.
        shards: as `crosslingual.data.shards.expand_shards` takes them.
        output_dir: the features' folder.
        resolution: of the pictures; None leaves them out.
        batch_size: pictures at a time.
        batches_per_block: batches a file.
        num_workers: processes that decode.
        rank: this process.
        world_size: processes.
        key_map: JSON key to language, for captions of others' shards.

    Raises:
        ValueError: the folder holds features of something else.
    """
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
    made_of = {
        **parts.made_of,
        "resolution": resolution,
        "shards": shards_hash(shards),
        "batch_size": batch_size,
    }
    claim(folder, made_of)
    for number in range(rank, -(-len(loader) // batches_per_block), world_size):
        path = folder / f"block-{number:05d}.safetensors"
        if path.exists():
            continue
        first = number * batches_per_block
        pieces, keys = [], []
        for batch in islice(loader.batches(first), min(batches_per_block, len(loader) - first)):
            pieces.append(parts.encode(batch))
            keys += batch["keys"]
        save_block(path, join(pieces), keys)
    if rank == 0:
        save_block(folder / NULL, parts.null(), [])
    return folder


def write_features(
    parts: SampleParts, shards: str, output_dir: str, *, ranks: Ranks, **options: Any
) -> Path:
    """A method's `features` verb: `compute_features` on all ranks, then the index, and a line on
    what there is; a second run goes on where the first one stopped.

    Args:
        parts: what the samples pass through.
        shards: as `crosslingual.data.shards.expand_shards` takes them.
        output_dir: the features' folder.
        ranks: this process among those that share the blocks.
        options: the others of `compute_features`.

    Returns:
        The folder.

    Raises:
        ValueError: a setting is missing, or the folder holds features of something else.
    """
    if not (shards and output_dir and parts.languages):
        raise ValueError("`features` needs --shards, --features_dir and --languages")
    folder = compute_features(
        parts, shards, output_dir, rank=ranks.rank, world_size=ranks.world_size, **options
    )
    torch.distributed.barrier()
    if ranks.rank == 0:
        index = finish_features(folder)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(
            f"{folder}: {index.num_rows} samples, {len(index.languages)} languages, {size:.1f} MiB"
        )
    return folder


def shards_hash(shards: str) -> str:
    """The hash that the shards' own index gives them; their names where they have no index (shards
    of others).
    """
    folder = Path(shards)
    if (folder / "index.json").is_file():
        return str(read_shard_index(folder)["sha256"])
    return shards


def online_batches(
    parts: SampleParts, loader: ShardLoader, start_step: int = 0
) -> Iterator[dict[str, Tensor | Ragged]]:
    """What `FeatureLoader.batches` yields, computed from pictures and captions as they come."""
    for batch in loader.batches(start_step):
        yield {**parts.encode(batch), "keys": batch["keys"]}
