"""Pictures and captions in tar shards, read at random so that none is held."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from crosslingual.data.records import find_picture
from crosslingual.data.tars import Shard
from crosslingual.data.text import fault_of
from crosslingual_benchmarks.datasets.retrieval_set import Picture


def read_samples(urls: Sequence[str]) -> Iterator[tuple[Picture, dict[str, Any]]]:
    """The samples of shards in stored order, each with its picture to be read later.

    Raises:
        FileNotFoundError: no such shard.
        ValueError: a shard is compressed or damaged, or holds a broken sample: a gallery with only
            some of its pictures would be easier.
    """
    for url in urls:
        shard = Shard(url)
        if shard.faults:
            name, reason = next(iter(shard.faults.items()))
            raise ValueError(f"{url}: {name}: {reason}; fetch or write the shard again")
        for index in range(len(shard.samples)):
            sample = shard.read(index)
            with fault_of(f"{url}: {sample['__key__']}", None):
                there = find_picture(sample) is not None
            source = partial(_read_picture, shard, index) if there else None
            yield Picture(sample["__key__"], source), sample


def _read_picture(shard: Shard, index: int) -> bytes:
    return find_picture(shard.read(index)) or b""
