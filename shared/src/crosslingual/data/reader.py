"""Reads the batch of any step from shards: what a worker of the loader does, and all it knows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from crosslingual.data.order import WINDOW_SAMPLES, WINDOW_SHARDS, SampleOrder
from crosslingual.data.pictures import decode_pixels, pixels_to_images
from crosslingual.data.records import Record, sample_to_record
from crosslingual.data.tars import Shard

MAX_IN_A_ROW = 1000


@dataclass(eq=False, kw_only=True)
class SampleReader(Dataset):
    """Maps a step to its batch and to the faults met on the way.

    A batch is one worker's, whole: how many workers there are cannot change the order.

    Attributes:
        urls: the shards, in stored order.
        sizes: samples by shard, as an index has them; the other shards are walked at the start.
        seed: of the order; None is stored order, every sample once.
        languages: those a sample must have.

    The others are arguments of `ShardLoader`.
    """

    urls: list[str]
    sizes: dict[str, int]
    batch_size: int
    seed: int | None
    rank: int
    world_size: int
    resolution: int | None
    languages: list[str] | None
    key_map: Mapping[str, str] | None
    caption_language: str

    def __post_init__(self) -> None:
        """Walks the shards whose sizes are not known."""
        self._faults: dict[str, str] = {}
        self._shards: dict[int, Shard] = {}
        known = [self.sizes.get(url) for url in self.urls]
        found = [len(self._shard(i).samples) if n is None else n for i, n in enumerate(known)]
        self.sizes = dict(zip(self.urls, found, strict=True))
        self.order = SampleOrder(found, self.seed)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files behind: a worker that is not forked opens its own."""
        return vars(self) | {"_shards": {}}

    @property
    def num_steps(self) -> int:
        """Steps an epoch."""
        global_batch = self.batch_size * self.world_size
        kept = self.seed is None
        return (self.order.num_samples + (global_batch - 1 if kept else 0)) // global_batch

    def __getitem__(self, step: int) -> tuple[dict[str, Any] | Exception, dict[str, str]]:
        """The batch of a step, or the error that stops the run; and the faults, by sample.

        An error is returned, because one raised in a worker would arrive as a traceback.
        """
        try:
            return self._batch(step), self.pop_faults()
        except (ValueError, OSError) as error:
            return error, self.pop_faults()

    def pop_faults(self) -> dict[str, str]:
        """The faults met since the last call."""
        faults, self._faults = self._faults, {}
        return faults

    def first_samples(self, count: int) -> Iterator[tuple[int, int]]:
        """Shard and place of the first samples, in stored order."""
        for shard, size in enumerate(self.order.sizes):
            for index in range(min(size, count)):
                yield shard, index
            count -= min(size, count)

    def name(self, shard: int, index: int) -> str:
        """A sample's shard and key, for messages."""
        samples = self._shard(shard).samples
        key = samples[index][0] if index < len(samples) else f"sample {index}"
        return f"{self.urls[shard]}: {key}"

    def sample(self, shard: int, index: int) -> dict[str, Any]:
        """A sample's members, undecoded.

        Raises:
            ValueError: the shard ends before it.
        """
        opened = self._shard(shard)
        if index >= len(opened.samples):
            raise ValueError(f"gone: the shard ends after {len(opened.samples)} samples")
        return opened.read(index)

    def record(self, shard: int, index: int) -> Record:
        """A sample's record.

        Raises:
            ValueError: why it is none: no caption, broken JSON, a bad key.
        """
        sample = self.sample(shard, index)
        key_map, language = self.key_map, self.caption_language
        try:
            return sample_to_record(sample, key_map=key_map, caption_language=language)
        except ValueError as error:
            # the name stands beside the reason, so that equal reasons are counted together
            raise ValueError(str(error).removeprefix(f"sample {sample['__key__']!r}: ")) from error

    def read(self, shard: int, index: int) -> tuple[Record, np.ndarray | None]:
        """A sample's record and its pixels, (H, W, 3) bytes; None where no resolution is set.

        Raises:
            ValueError: why it cannot be used.
        """
        record = self.record(shard, index)
        if self.resolution is None:
            return record, None
        if not isinstance(record.image, bytes):
            raise ValueError("no picture")
        return record, decode_pixels(record.image, self.resolution)

    def _batch(self, step: int) -> dict[str, Any]:
        epoch, place = divmod(step, self.num_steps)
        start = (place * self.world_size + self.rank) * self.batch_size
        stop = min(start + self.batch_size, self.order.num_samples)
        taken = [self._take(epoch, position) for position in range(start, stop)]
        items = [item for item in taken if item is not None]
        images = None
        if self.resolution is not None:
            blank = np.empty((0, self.resolution, self.resolution, 3), np.uint8)
            images = pixels_to_images(np.stack([item[1] for item in items]) if items else blank)
        records = [record for record, _ in items]
        return {
            "keys": [record.key for record in records],
            "images": images,
            "captions": [record.captions for record in records],
            "parallel": torch.tensor([record.parallel for record in records], dtype=torch.bool),
            "culture": [record.culture for record in records],
            "extra": [record.extra for record in records],
        }

    def _take(self, epoch: int, position: int) -> tuple[Record, np.ndarray | None] | None:
        """The sample at a position, or the next usable one; None in stored order."""
        num_samples = self.order.num_samples
        is_replaced = self.seed is not None
        for ahead in range(min(num_samples, MAX_IN_A_ROW) if is_replaced else 1):
            shard, index = self.order.locate(epoch, (position + ahead) % num_samples)
            try:
                record, pixels = self.read(shard, index)
            except ValueError as error:
                self._faults[self.name(shard, index)] = str(error)
                continue
            self._check_languages(record, shard)
            return record, pixels
        if is_replaced:
            raise ValueError(f"{ahead + 1} samples in a row cannot be used: write the shards again")
        return None

    def _check_languages(self, record: Record, shard: int) -> None:
        missing = [name for name in self.languages or [] if name not in record.captions]
        if missing:
            raise ValueError(
                f"{record.key} of {self.urls[shard]} has no caption in {', '.join(missing)} (it "
                f"has {', '.join(record.captions)}); choose other languages or set allow_missing"
            )

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            shard = self._shards[number] = Shard(self.urls[number])
            self._note_faults(shard)
            while len(self._shards) > 1 and self._is_full():
                self._shards.pop(next(iter(self._shards))).close()
        return self._shards[number]

    def _is_full(self) -> bool:
        """Whether more is open than two windows of the order need."""
        num_samples = sum(len(shard.samples) for shard in self._shards.values())
        return len(self._shards) > 2 * WINDOW_SHARDS or num_samples > 3 * WINDOW_SAMPLES

    def _note_faults(self, shard: Shard) -> None:
        for name, reason in shard.faults.items():
            self._faults[f"{shard.url}: {name}"] = reason
        for key, _ in shard.samples[self.sizes.get(shard.url, len(shard.samples)) :]:
            self._faults[f"{shard.url}: {key}"] = "more than the index beside the shard knows of"
