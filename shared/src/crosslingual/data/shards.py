"""Shards: tar files of samples, in WebDataset's layout, with an index of what they hold.

A folder of ours holds `00000.tar`, ..., `sizes.json` (as open_clip reads it) and `index.json`,
written last. The same records give the same bytes. Shards of others are read as they are.
"""

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crosslingual.data.index import SIZES, VERSION, Tally, check_sizes, read_index
from crosslingual.data.records import Record, names_found, record_to_sample, sample_to_record
from crosslingual.data.tars import INDEX, PARTIAL, expand_shards, iter_samples

__all__ = [
    "check_sizes",
    "expand_shards",
    "iter_samples",
    "iter_shards",
    "read_index",
    "survey_shards",
    "write_shards",
]


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
            folder.rmdir()  # succeeds only where the folder is empty: nothing was written
    return index


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


def survey_shards(
    paths: Iterable[str],
    *,
    key_map: Mapping[str, str] | None = None,
    caption_language: str = "en",
) -> Tally:
    """Reads shards and counts what they hold; the options are those of `sample_to_record`.

    Raises:
        ValueError: a shard cannot be read.
    """
    tally = Tally()
    for sample in itertools.chain.from_iterable(map(iter_samples, paths)):
        tally.names.update(names_found(sample))
        try:
            tally.add(sample_to_record(sample, key_map=key_map, caption_language=caption_language))
        except ValueError as error:
            tally.faults.append(str(error))
    return tally


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
    import webdataset  # which imports torch: seconds that only writing pays

    # owner, mode and time are constants, so that the same samples give the same bytes
    constants = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}
    num_samples = 0
    with path.open("w+b") as file:
        with webdataset.TarWriter(file, **constants) as tar:
            for sample in samples:
                tar.write(sample)
                num_samples += 1
        num_bytes = file.tell()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": path.name,
        "num_samples": num_samples,
        "sha256": sha256,
        "num_bytes": num_bytes,
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
