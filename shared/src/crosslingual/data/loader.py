"""The loader: batches of pictures and captions from shards, in an order fixed by (seed, epoch).

The global batch of a step is a slice of the epoch's permutation, and each rank takes its part of
it. So the data depend neither on the number of ranks (as long as ranks x batch size stays) nor on
the number of workers, every rank makes the same number of steps, and a resume at any step costs
nothing. What cannot be used is replaced by the next sample in that order, counted and reported.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from crosslingual.data.index import (
    NUM_PROBED,
    check_hash,
    count_languages,
    shard_hashes,
    shard_sizes,
)
from crosslingual.data.languages import describe_counts, find_tags, rename_captions
from crosslingual.data.order import WINDOW_SAMPLES, WINDOW_SHARDS, SampleOrder
from crosslingual.data.pictures import MAX_PIXELS, decode_pixels, pixels_to_images
from crosslingual.data.records import Record, describe_faults, names_found, sample_to_record
from crosslingual.data.tars import FOREIGN, Shard, expand_shards
from crosslingual.data.text import printable

NUM_LOGGED = 10  # faults that are logged as they are met; all are in `faults` and `report()`
MIN_JUDGED = 1000  # below this many samples read, `max_corrupt` is a share of this many (or of all)
MAX_IN_A_ROW = 1000

log = logging.getLogger(__name__)


class ShardLoader(Dataset):
    """Endless batches of a rank, with the faults of the data counted.

    As a dataset it maps a step to its batch, whole, so that the number of workers cannot change the
    order. Its copies in worker processes read; only the original counts.

    Attributes:
        urls: the shards, in stored order.
        num_samples: in all shards together.
        faults: what was skipped and why, by shard and sample.
        num_read: samples of this rank so far, with those that were skipped.
        language_line: how many samples have captions in each of the languages.
    """

    def __init__(
        self,
        shards: str,
        *,
        batch_size: int,
        seed: int,
        resolution: int | None,
        languages: list[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        allow_missing: bool = False,
        max_corrupt: float = 0.01,
        max_pixels: int = MAX_PIXELS,
        key_map: Mapping[str, str] | None = None,
        caption_language: str = "en",
        shuffle: bool = True,
        verify: bool = True,
    ):
        """Opens the shards and looks at the first samples, so that what is wrong shows at once.

        Args:
            shards: what `expand_shards` takes; shards at an address are read by ranges.
            batch_size: samples a rank and step.
            seed: of the order.
            resolution: pixels of the square pictures; None loads captions alone.
            languages: that each sample must have a caption in; None asks for nothing. One that the
                shards have under another tag of the same language and script is found there.
            rank: this process.
            world_size: processes.
            num_workers: processes that read and decode ahead; 0 does so in this one.
            allow_missing: whether samples may lack captions in some of `languages`; in each, some
                sample has one.
            max_corrupt: the share of samples that may be unusable before the run stops; members
                that belong to no sample do not count.
            max_pixels: pixels that a picture may have; a larger one is not decoded, but a fault.
            key_map: JSON key to language, for captions of others' shards.
            caption_language: of `KEY.txt`, in shards of others.
            shuffle: False yields the samples once an epoch in stored order (one rank): the last
                batch may be short, and a corrupt sample is left out, not replaced.
            verify: whether a local shard is compared with the SHA-256 in the index beside it when
                it is first read.

        Raises:
            FileNotFoundError: no shard matches.
            ValueError: no usable sample (with the names found), fewer samples than a global batch,
                captions missing in a language, a damaged shard.
        """
        assert shuffle or world_size == 1, "stored order is for one rank"
        self.urls = expand_shards(shards)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.num_workers, self.max_corrupt, self.shuffle = num_workers, max_corrupt, shuffle
        self.resolution, self.max_pixels = resolution, max_pixels
        self.languages = [] if allow_missing else languages or []
        self.language_line = ""
        self._tags: dict[str, list[str]] = {}  # where captions in a language are found
        self.faults: dict[str, str] = {}
        self.num_read = self._num_corrupt = 0
        self._options = {"key_map": key_map, "caption_language": caption_language}
        self._met: dict[str, str] = {}  # faults since the last batch
        self._open: dict[int, Shard] = {}
        self._hashes = shard_hashes(self.urls) if verify else {}
        self._is_verified = torch.zeros(len(self.urls), dtype=torch.bool).share_memory_()
        known = shard_sizes(self.urls)
        self._sizes = [known.get(url) for url in self.urls]
        for number, size in enumerate(self._sizes):
            if size is None:
                self._shard(number)
        self._order = SampleOrder(self._sizes, seed if shuffle else None)
        self.num_samples = self._order.num_samples
        self._check_samples(shards)
        if languages:
            self._find_languages(languages)
        if len(self) == 0:
            raise ValueError(
                f"{self.num_samples} samples in {shards} do not fill one batch of {world_size} "
                f"ranks x {batch_size}: lower train_batch_size or add data"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files behind: a worker that is not forked opens its own."""
        return vars(self) | {"_open": {}}

    def __len__(self) -> int:
        """Steps an epoch, equal on all ranks; the rest waits for another epoch."""
        global_batch = self.batch_size * self.world_size
        return (self.num_samples + (0 if self.shuffle else global_batch - 1)) // global_batch

    def __getitem__(self, step: int) -> tuple[dict[str, Any] | Exception, dict[str, str]]:
        """The batch of a step, or the error that stops the run; and the faults, by sample.

        An error is returned, because one raised in a worker would arrive as a traceback.
        """
        try:
            found: dict[str, Any] | Exception = self._batch(step)
        except (ValueError, OSError) as error:
            found = error
        faults, self._met = self._met, {}
        return found, faults

    @property
    def num_skipped(self) -> int:
        """Samples of this rank that were passed over so far, each counted once."""
        return len(self.faults)

    def report(self) -> str:
        """What was skipped so far, in one line."""
        said = f"skipped {self.num_skipped} of {self.num_read} samples"
        return f"{said}: {describe_faults(self.faults)}" if self.faults else said

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        """Batches from a step on, without end; step s is step s % len of epoch s // len.

        Yields:
            `keys`, list of B; `images`, (B, 3, resolution, resolution) float32 in [-1, 1], or None;
            `captions`, list of B {language: texts}; `parallel`, (B,) bool; `culture`, list of B
            language or None; `extra`, list of B dicts.

        Raises:
            ValueError: too much of the data is corrupt; a sample lacks a language.
        """
        # a generator of its own: DataLoader would draw a seed from the global one, and a resumed
        # run would then draw other noise than one that was never stopped
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=itertools.count(start_step),
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
        for batch, faults in loader:
            self._count(faults, 0 if isinstance(batch, Exception) else len(batch["keys"]))
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _count(self, faults: dict[str, str], num_samples: int) -> None:
        new = {name: reason for name, reason in faults.items() if name not in self.faults}
        for name, reason in new.items():
            if len(self.faults) < NUM_LOGGED:
                log.warning("skipped %s: %s", name, reason)
            self.faults[name] = reason
            self._num_corrupt += reason != FOREIGN
        self.num_read = self.num_read + num_samples + len(new)
        judged = max(min(self.num_read, self.num_samples), min(MIN_JUDGED, self.num_samples))
        if self._num_corrupt > self.max_corrupt * max(judged, self._num_corrupt):
            raise ValueError(
                f"{self.report()}; that is more than max_corrupt = {self.max_corrupt:g} allows: "
                "write these shards again, or raise --max_corrupt"
            )

    def _check_samples(self, shards: str) -> None:
        """Finds one usable sample among the first, or says what there is instead."""
        found: set[str] = set()
        reasons: dict[str, str] = {}
        places = ((shard, i) for shard, size in enumerate(self._sizes) for i in range(size))
        for place in itertools.islice(places, NUM_PROBED):
            self._verify(place[0])
            try:
                self._read(*place)
                return
            except ValueError as error:
                reasons[self._name(*place)] = str(error)
            with contextlib.suppress(ValueError):
                found |= set(names_found(self._sample(*place)))
        reasons |= self._met
        if not reasons:
            raise ValueError(f"{shards} holds no samples; run `crosslingual shards` to write some")
        name, reason = next(iter(reasons.items()))
        raise ValueError(
            f"none of the first {len(reasons)} samples of {shards} can be used; {name}: {reason}; "
            f"names found: {', '.join(sorted(found)) or 'none'}"
        )

    def _find_languages(self, languages: list[str]) -> None:
        """Finds the tags under which the shards have the languages, and compares the counts."""
        counts, num_samples, is_whole = count_languages(self.urls, languages, **self._options)
        self._tags = find_tags(languages, counts, is_whole)
        counts |= {name: sum(counts[tag] for tag in found) for name, found in self._tags.items()}
        self.language_line = describe_counts(languages, counts, num_samples, self.num_samples)
        missing = [name for name in self.languages if counts[name] < num_samples]
        if missing:
            raise ValueError(
                f"captions are missing in {', '.join(missing)}: {self.language_line}; choose other "
                "--languages, or write shards without the samples that lack one"
            )

    def _batch(self, step: int) -> dict[str, Any]:
        epoch, place = divmod(step, len(self))
        start = (place * self.world_size + self.rank) * self.batch_size
        stop = min(start + self.batch_size, self.num_samples)
        taken = [self._take(epoch, position) for position in range(start, stop)]
        items = [item for item in taken if item is not None]
        records = [record for record, _ in items]
        images = None
        if (side := self.resolution) is not None:
            pixels = np.array([pixels for _, pixels in items], np.uint8)
            images = pixels_to_images(pixels.reshape(-1, side, side, 3))
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
        for ahead in range(min(self.num_samples, MAX_IN_A_ROW) if self.shuffle else 1):
            shard, index = self._order.locate(epoch, (position + ahead) % self.num_samples)
            self._verify(shard)
            try:
                record, pixels = self._read(shard, index)
            except ValueError as error:
                self._met[self._name(shard, index)] = str(error)
                continue
            missing = [name for name in self.languages if name not in record.captions]
            if missing:
                raise ValueError(
                    f"{record.key} of {self.urls[shard]} has no caption in {', '.join(missing)} "
                    f"(it has {', '.join(record.captions)}); choose other --languages, or write "
                    "shards without such samples"
                )
            return record, pixels
        if self.shuffle:
            raise ValueError(f"{ahead + 1} samples in a row cannot be used: write the shards again")
        return None

    def _read(self, shard: int, index: int) -> tuple[Record, np.ndarray | None]:
        """A sample's record and its pixels, (H, W, 3) bytes; None where no resolution is set."""
        sample = self._sample(shard, index)
        try:
            record = sample_to_record(sample, **self._options)
        except ValueError as error:
            # the name stands beside the reason, so that equal reasons are counted together
            raise ValueError(str(error).removeprefix(f"sample {sample['__key__']!r}: ")) from error
        rename_captions(record.captions, self._tags)
        if self.resolution is None:
            return record, None
        if not isinstance(record.image, bytes):
            raise ValueError("no picture")
        return record, decode_pixels(record.image, self.resolution, self.max_pixels)

    def _sample(self, shard: int, index: int) -> dict[str, Any]:
        opened = self._shard(shard)
        if index >= len(opened.samples):
            raise ValueError(f"gone: the shard ends after {len(opened.samples)} samples")
        return opened.read(index)

    def _verify(self, number: int) -> None:
        """Compares a shard with its index, once for all workers; they share what was verified."""
        url = self.urls[number]
        if url in self._hashes and not self._is_verified[number]:
            check_hash(Path(url), self._hashes[url])
            self._is_verified[number] = True

    def _name(self, shard: int, index: int) -> str:
        """A sample's shard and key, for messages."""
        samples = self._shard(shard).samples
        key = samples[index][0] if index < len(samples) else f"sample {index}"
        return f"{self.urls[shard]}: {printable(key)}"

    def _shard(self, number: int) -> Shard:
        """A shard, opened; what two windows of the order do not need is closed."""
        if number not in self._open:
            shard = self._open[number] = Shard(self.urls[number])
            if self._sizes[number] is None:
                self._sizes[number] = len(shard.samples)
            faults = dict(shard.faults)
            for key, _ in shard.samples[self._sizes[number] :]:
                faults[key] = "more than the index beside the shard knows of"
            self._met |= {f"{shard.url}: {name}": reason for name, reason in faults.items()}
            while len(self._open) > 1 and (
                len(self._open) > 2 * WINDOW_SHARDS
                or sum(len(each.samples) for each in self._open.values()) > 3 * WINDOW_SAMPLES
            ):
                self._open.pop(next(iter(self._open))).close()
        return self._open[number]


def _as_it_is(item: Any) -> Any:
    return item
