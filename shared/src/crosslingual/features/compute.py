"""The pass over shards that computes features: stores what a method's parts make of a batch.
`TrainingData` hands the same straight on where training reads shards.
"""

from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from crosslingual.data.index import shards_hash
from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import parse_key_map
from crosslingual.features.blocks import join, save_block
from crosslingual.features.loader import (
    NULL,
    block_name,
    claim,
    claim_hash,
    finish_features,
    is_written,
)
from crosslingual.features.ragged import Ragged
from crosslingual.files import naming_full_disk
from crosslingual.frozen.tokens import CutCounts
from crosslingual.training.folder import lock_folder, on_first_rank
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


def write_run_features(
    settings: Any,
    parts: SampleParts,
    ranks: Ranks,
    *,
    has_pictures: bool = True,
    batches_per_block: int = 16,
) -> Path:
    """Writes the features of all samples of `settings.shards` to `settings.features_dir`. Ranks
    share the blocks; blocks that are complete stay, so that a second run continues the first.

    Args:
        settings: a `training.settings.FeaturesSettings` that has a training run's settings as well.
        parts: what the samples pass through.
        ranks: this process among those that share the blocks.
        has_pictures: whether the method looks at pictures, and not at captions alone.
        batches_per_block: batches of `encode_batch_size` samples in a file.

    Raises:
        ValueError: a setting is missing, the folder holds something else, or another process
            writes into it.
        OSError: the disk is full; a second run goes on.
    """
    if not (settings.shards and settings.features_dir and parts.languages):
        raise ValueError("`features` needs --shards, --features_dir and --languages")
    folder = Path(settings.features_dir)
    message = f"the features in {folder} are not complete; make room and run `features` again"
    with (
        lock_folder(folder, ranks, flag="--features_dir"),
        naming_full_disk(f"{message}, which goes on"),
    ):
        _write(settings, parts, ranks, folder, has_pictures, batches_per_block)
    return folder


def _write(
    settings: Any,
    parts: SampleParts,
    ranks: Ranks,
    folder: Path,
    has_pictures: bool,
    batches_per_block: int,
) -> None:
    shards, batch_size, verify = settings.shards, settings.encode_batch_size, settings.verify_data
    loader = open_shards(
        settings, shards, parts, has_pictures, batch_size=batch_size, seed=0, shuffle=False
    )
    if ranks.rank == 0:
        print(loader.language_line)
    of_run = {"shards": shards_hash(shards) or shards, "batch_size": batch_size}
    made_of = {**parts.made_of, "resolution": loader.resolution, **of_run}
    on_first_rank(ranks, lambda: claim(folder, made_of))
    own = claim_hash(folder)
    firsts = range(0, len(loader), batches_per_block)
    for number in range(ranks.rank, len(firsts), ranks.world_size):
        if is_written(folder, block_name(number), own, verify=verify):
            continue
        pieces, keys, cut = [], [], CutCounts()
        num_batches = min(batches_per_block, len(loader) - firsts[number])
        for batch in islice(loader.batches(firsts[number]), num_batches):
            captions = [(name, texts[0]) for c in batch["captions"] for name, texts in c.items()]
            with cut.counting(captions):
                pieces.append(parts.encode(batch))
            keys += batch["keys"]
        cut_counts = cut.as_json()
        save_block(folder / block_name(number), join(pieces), keys, cut=cut_counts, made_of=own)
    if ranks.rank == 0:
        save_block(folder / NULL, parts.null(), [], made_of=own)
    if ranks.world_size > 1:
        torch.distributed.barrier()
    if ranks.rank == 0:
        index = finish_features(folder, len(firsts))
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(
            f"{folder}: {index.num_rows} samples, {len(index.languages)} languages, {size:.1f} MiB"
        )
        if index.cut:
            print(CutCounts().add(index.cut))


def open_shards(
    settings: Any, shards: str, parts: SampleParts, has_pictures: bool, **options: Any
) -> ShardLoader:
    """A loader of shards, of what the parts need, with a run's settings and further options."""
    return ShardLoader(
        shards,
        **options,
        resolution=settings.resolution if has_pictures else None,
        num_workers=settings.dataloader_num_workers,
        verify=settings.verify_data,
        max_corrupt=settings.max_corrupt,
        max_pixels=settings.max_pixels,
        key_map=parse_key_map(settings.caption_keys) or None,
        languages=parts.languages,
        allow_missing=True,
    )
