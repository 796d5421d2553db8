"""The loader: batches of pictures and captions from shards, in an order fixed by (seed, epoch).

The global batch of a step is a slice of the epoch's permutation, and each rank takes its part of
it. So the data depend neither on the number of ranks (as long as ranks x batch size stays) nor on
the number of workers, every rank makes the same number of steps, and a resume at any step costs
nothing. What cannot be used is replaced by the next sample in that order, counted and reported.
"""

import contextlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from crosslingual.data.index import language_counts, shard_sizes
from crosslingual.data.reader import SampleReader
from crosslingual.data.records import names_found
from crosslingual.data.tars import expand_shards

NUM_PROBED = 64
NUM_LOGGED = 10  # faults that are logged as they are met; all are in `faults` and `report()`
MIN_JUDGED = 1000  # below this many samples read, `max_corrupt` is a share of this many (or of all)

log = logging.getLogger(__name__)


class ShardLoader:
    """Endless batches of a rank, with the faults of the data counted.

    Attributes:
        urls: the shards, in stored order.
        num_samples: in all shards together.
        faults: what was skipped and why, by shard and sample.
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
        key_map: Mapping[str, str] | None = None,
        caption_language: str = "en",
        shuffle: bool = True,
    ):
        """Opens the shards and looks at the first samples, so that what is wrong shows at once.

        Args:
            shards: what `expand_shards` takes; shards at an address are read by ranges.
            batch_size: samples a rank and step.
            seed: of the order.
            resolution: pixels of the square pictures; None loads captions alone.
            languages: that each sample must have a caption in; None asks for nothing.
            rank: this process.
            world_size: processes.
            num_workers: processes that read and decode ahead; 0 does so in this one.
            allow_missing: whether samples may lack captions in some of `languages`.
            max_corrupt: the share of samples that may be unusable before the run stops.
            key_map: JSON key to language, for captions of others' shards.
            caption_language: of `KEY.txt`, in shards of others.
            shuffle: False yields the samples once an epoch in stored order (one rank): the last
                batch may be short, and a corrupt sample is left out, not replaced.

        Raises:
            FileNotFoundError: no shard matches.
            ValueError: no usable sample (with the names found), fewer samples than a global batch,
                captions missing in a language.
        """
        assert shuffle or world_size == 1, "stored order is for one rank"
        self.urls = expand_shards(shards)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.num_workers, self.max_corrupt, self.shuffle = num_workers, max_corrupt, shuffle
        self.faults: dict[str, str] = {}
        self.num_read = 0
        self._reader = SampleReader(
            urls=self.urls,
            sizes=shard_sizes(self.urls),
            batch_size=batch_size,
            seed=seed if shuffle else None,
            rank=rank,
            world_size=world_size,
            resolution=resolution,
            languages=None if allow_missing else languages,
            key_map=key_map,
            caption_language=caption_language,
        )
        self.num_samples = self._reader.order.num_samples
        self._check_samples(shards)
        if languages and not allow_missing:
            self._check_languages(languages)
        if len(self) == 0:
            raise ValueError(
                f"{self.num_samples} samples in {shards} do not fill one batch of {world_size} "
                f"ranks x {batch_size}: lower train_batch_size or add data"
            )

    def __len__(self) -> int:
        """Steps an epoch, equal on all ranks; the rest waits for another epoch."""
        return self._reader.num_steps

    @property
    def num_skipped(self) -> int:
        """Samples of this rank that were passed over so far, each counted once."""
        return len(self.faults)

    def report(self) -> str:
        """What was skipped so far, in one line."""
        reasons = Counter(re.split("[:;]", reason)[0] for reason in self.faults.values())
        counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        where = "; ".join(f"{name}: {reason}" for name, reason in [*self.faults.items()][:3])
        said = f"skipped {self.num_skipped} of {self.num_read} samples"
        return f"{said}: {counts}; first: {where}" if self.faults else said

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
            self._reader,
            batch_size=None,
            sampler=itertools.count(start_step),
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
        for batch, faults in loader:
            num_samples = 0 if isinstance(batch, Exception) else len(batch["keys"])
            self._count(faults, num_samples)
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _count(self, faults: dict[str, str], num_samples: int) -> None:
        new = {name: reason for name, reason in faults.items() if name not in self.faults}
        for name, reason in new.items():
            if len(self.faults) < NUM_LOGGED:
                log.warning("skipped %s: %s", name, reason)
            self.faults[name] = reason
        self.num_read = self.num_read + num_samples + len(new)
        judged = max(min(self.num_read, self.num_samples), min(MIN_JUDGED, self.num_samples))
        if self.num_skipped > self.max_corrupt * judged:
            raise ValueError(
                f"{self.report()}; that is more than max_corrupt = {self.max_corrupt:g} allows: "
                "write these shards again, or raise max_corrupt"
            )

    def _check_samples(self, shards: str) -> None:
        """Finds one usable sample among the first, or says what there is instead."""
        found: set[str] = set()
        reasons: dict[str, str] = {}
        for shard, index in self._reader.first_samples(NUM_PROBED):
            try:
                self._reader.read(shard, index)
                return
            except ValueError as error:
                reasons[self._reader.name(shard, index)] = str(error)
            with contextlib.suppress(ValueError):
                found |= set(names_found(self._reader.sample(shard, index)))
        reasons |= self._reader.pop_faults()
        if not reasons:
            raise ValueError(f"{shards} holds no samples; run `crosslingual shards` to write some")
        name, reason = next(iter(reasons.items()))
        raise ValueError(
            f"none of the first {len(reasons)} samples of {shards} can be used; {name}: {reason}; "
            f"names found: {', '.join(sorted(found)) or 'none'}"
        )

    def _check_languages(self, languages: list[str]) -> None:
        """Compares with what the indexes say, or with the first samples where there is none."""
        counts, num_samples = language_counts(self.urls)
        if num_samples < self.num_samples:
            counts, num_samples = Counter(), 0
            for shard, index in self._reader.first_samples(NUM_PROBED):
                with contextlib.suppress(ValueError):
                    counts.update(self._reader.record(shard, index).captions.keys())
                    num_samples += 1
        missing = [name for name in languages if counts[name] < num_samples]
        if missing:
            had = ", ".join(f"{name} {counts[name]}" for name in sorted({*counts, *missing}))
            raise ValueError(
                f"captions are missing in {', '.join(missing)}: of {num_samples} samples there "
                f"are {had}; choose other languages or set allow_missing"
            )


def _as_it_is(item: Any) -> Any:
    return item
