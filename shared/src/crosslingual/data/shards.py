"""Shards: tar files of samples, in WebDataset's layout, with an index of what they hold.

A folder of ours holds `00000.tar`, ..., `sizes.json` (as open_clip reads it) and `index.json`,
written last. The same records give the same bytes. Shards of others are read as they are.
"""

import contextlib
import hashlib
import io
import itertools
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from crosslingual.data.records import Record, names_found, record_to_sample, sample_to_record
from crosslingual.data.tars import INDEX, PARTIAL, expand_shards, iter_samples

__all__ = [
    "Tally",
    "check_sizes",
    "expand_shards",
    "iter_samples",
    "iter_shards",
    "read_index",
    "write_shards",
]

SIZES = "sizes.json"
VERSION = 1


class Tally:
    """What records hold, counted as `index.json` says it."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self.counts = Counter(num_samples=0, num_images=0, num_parallel=0, num_culture=0)
        self.languages: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Counts a record."""
        self.counts["num_samples"] += 1
        self.counts["num_images"] += record.image is not None
        self.counts["num_parallel"] += record.parallel
        self.counts["num_culture"] += record.culture is not None
        self.languages.update(record.captions.keys())

    def as_dict(self) -> dict[str, Any]:
        """The counts, and `languages`: samples with a caption in each."""
        return {**self.counts, "languages": dict(sorted(self.languages.items()))}


def write_shards(
    records: Iterable[Record],
    output_dir: str | Path,
    *,
    samples_per_shard: int = 10_000,
    overwrite: bool = False,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Writes records as shards; the folder appears whole or not at all.

    Args:
        records: what to write, in this order.
        output_dir: a folder that is new or empty.
        samples_per_shard: the last shard may hold fewer.
        overwrite: replace shards that `output_dir` holds, once the new ones are complete.
        allow_missing: leave out records whose picture is missing or no picture, and count them.

    Returns:
        The index: `shards` (name, num_samples, sha256, num_bytes), `num_samples`, `num_images`,
        `num_missing`, `num_parallel`, `num_culture`, `languages` (samples by language), `sha256`.

    Raises:
        ValueError: the folder is taken, a key comes twice, a picture is no picture, no records.
        FileNotFoundError: a picture is missing.
    """
    folder = Path(output_dir)
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, not {samples_per_shard}")
    old = _names_to_replace(folder, overwrite)
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        index = _write_all(records, partial, samples_per_shard, allow_missing)
        for name in old:
            (folder / name).unlink()
        for name in [*(shard["name"] for shard in index["shards"]), SIZES, INDEX]:
            (partial / name).rename(folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # goes only where it is empty: nothing was written
    return index


def read_index(folder: str | Path) -> dict[str, Any]:
    """Reads `index.json` of a folder of ours.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken, or of another kind or version.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run `crosslingual shards` to write shards with one")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}); write the shards again") from error
    if not isinstance(index, dict) or "shards" not in index or index.get("version") != VERSION:
        raise ValueError(f"{path} is no index of shards of version {VERSION}")
    return index


def check_sizes(folder: str | Path, index: Mapping[str, Any]) -> None:
    """Compares the shards on disk with their index, by size.

    Raises:
        ValueError: one is missing, truncated or written by something else.
    """
    for shard in index["shards"]:
        path = Path(folder) / shard["name"]
        found = path.stat().st_size if path.is_file() else 0
        if found != shard["num_bytes"]:
            expected = f"its index says {shard['num_bytes']}"
            raise ValueError(f"{path} has {found} bytes, {expected}; copy or write it again")


def iter_shards(
    paths: Iterable[str],
    *,
    key_map: Mapping[str, str] | None = None,
    caption_language: str = "en",
) -> Iterator[Record]:
    """Reads the records of shards, in order; the options are those of `sample_to_record`.

    Raises:
        ValueError: a shard or a sample cannot be read; both are named.
    """
    for path in paths:
        for sample in iter_samples(path):
            try:
                yield sample_to_record(sample, key_map=key_map, caption_language=caption_language)
            except ValueError as error:
                found = ", ".join(names_found(sample))
                raise ValueError(f"{path}: {error} (the sample holds {found})") from error


class _HashedFile:
    """Counts and hashes what is written, so that no shard is read again for its index."""

    def __init__(self, file: IO[bytes]):
        self.file, self.sha256, self.num_bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.num_bytes += len(data)
        return self.file.write(data)


def _write_all(
    records: Iterable[Record], folder: Path, samples_per_shard: int, allow_missing: bool
) -> dict[str, Any]:
    tally = Tally()
    missing: list[str] = []
    samples = _samples(records, tally, missing if allow_missing else None)
    shards = []
    for first in samples:
        chunk = itertools.chain([first], itertools.islice(samples, samples_per_shard - 1))
        shards.append(_write_shard(folder / f"{len(shards):05d}.tar", chunk))
    if not shards:
        found = f"; {len(missing)} pictures are missing" if missing else ""
        raise ValueError(f"the source holds no samples{found}: check its path and split")
    index = {
        "version": VERSION,
        "shards": shards,
        **tally.as_dict(),
        "num_missing": len(missing),
        "sha256": hashlib.sha256("\n".join(s["sha256"] for s in shards).encode()).hexdigest(),
    }
    sizes = {shard["name"]: shard["num_samples"] for shard in shards}
    (folder / SIZES).write_text(json.dumps(sizes, indent=1) + "\n")
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    return index


def _samples(
    records: Iterable[Record], tally: Tally, missing: list[str] | None
) -> Iterator[dict[str, Any]]:
    """Samples of records, counted; keys without a picture go to `missing`, or stop it if None."""
    seen: set[str] = set()
    for record in records:
        if record.key in seen:
            raise ValueError(f"key {record.key!r} comes twice; give every sample its own name")
        seen.add(record.key)
        try:
            sample = record_to_sample(record)
        except (FileNotFoundError, ValueError) as error:
            if missing is not None:
                missing.append(record.key)
                continue
            remedy = "add it, or leave such samples out with --allow_missing"
            raise type(error)(f"record {record.key!r}: {error}; {remedy}") from error
        tally.add(record)
        yield sample


def _write_shard(path: Path, samples: Iterable[dict[str, Any]]) -> dict[str, Any]:
    # tarfile, since webdataset's TarWriter does the same but imports torch, seconds for a command
    num_samples = 0
    with path.open("wb") as file:
        stream = _HashedFile(file)
        # PAX, for keys of any length and script
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                key = sample.pop("__key__")
                for extension, data in sorted(sample.items()):
                    member = tarfile.TarInfo(f"{key}.{extension}")  # owner, mode, time: constants
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                num_samples += 1
    return {
        "name": path.name,
        "num_samples": num_samples,
        "sha256": stream.sha256.hexdigest(),
        "num_bytes": stream.num_bytes,
    }


def _names_to_replace(folder: Path, overwrite: bool) -> list[str]:
    """The files of `folder` that new shards may replace, the index first."""
    if not folder.exists():
        return []
    present = {path.name for path in folder.iterdir()} - {PARTIAL}
    if not present:
        return []
    if not overwrite:
        raise ValueError(f"{folder} is not empty; choose another --output_dir or --overwrite")
    ours = [INDEX, SIZES, *(shard["name"] for shard in read_index(folder)["shards"])]
    if foreign := sorted(present - set(ours)):
        raise ValueError(f"{folder} holds other files ({foreign[0]}), so it is not overwritten")
    return [name for name in ours if name in present]
