"""Shards: tar files of samples, in WebDataset's layout, with an index of what they hold.

A folder of ours holds `00000.tar`, ..., `sizes.json` (as open_clip reads it) and `index.json`. The
same records give the same bytes. Shards of others are read as they are.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crosslingual.data.index import SIZES, VERSION, Tally, check_sizes, read_index
from crosslingual.data.records import Record, names_found, record_to_sample, sample_to_record
from crosslingual.data.tars import INDEX, expand_shards, iter_samples
from crosslingual.files import publish_folder

__all__ = ["check_sizes", "expand_shards", "iter_shards", "read_index", "write_shards"]


def write_shards(
    records: Iterable[Record],
    output_dir: str | Path,
    *,
    samples_per_shard: int = 10_000,
    overwrite: bool = False,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Writes records as shards, in their order; the folder appears whole or not at all.

    Args:
        records: what to write.
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
    index: dict[str, Any] = {}

    def fill(partial: Path) -> dict[str, dict[str, Any]]:
        index.update(_write_all(records, partial, samples_per_shard, allow_missing))
        facts = ("num_bytes", "sha256")
        return {each["name"]: {name: each[name] for name in facts} for each in index["shards"]}

    publish_folder(folder, fill, kind="shards", overwrite=overwrite, earlier=_written_before)
    return index


def iter_shards(paths: Iterable[str], **options: Any) -> Iterator[Record]:
    """Reads the records of shards, in order; the options are those of `sample_to_record`.

    Raises:
        ValueError: a shard or a sample cannot be read; both are named.
    """
    for path in paths:
        for sample in iter_samples(path):
            try:
                yield sample_to_record(sample, **options)
            except ValueError as error:
                found = ", ".join(names_found(sample))
                raise ValueError(f"{path}: {error} (the sample holds {found})") from error


def _write_all(
    records: Iterable[Record], folder: Path, samples_per_shard: int, allow_missing: bool
) -> dict[str, Any]:
    import webdataset  # which imports torch: seconds that only writing pays

    tally, keys, num_missing = Tally(), set(), 0
    pattern = str(folder.absolute()).replace("%", "%%") + "/%05d.tar"
    # owner, mode and time are constants, so that the same samples give the same bytes
    constants = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}
    limits = {"maxcount": samples_per_shard, "maxsize": math.inf, "verbose": 0}
    with webdataset.ShardWriter(pattern, **limits, **constants) as tars:
        for record in records:
            if record.key in keys:
                raise ValueError(f"key {record.key!r} comes twice; give every sample its own name")
            keys.add(record.key)
            try:
                sample = record_to_sample(record)
            except (FileNotFoundError, ValueError):
                if not allow_missing:
                    raise
                num_missing += 1
                continue
            tally.add(record)
            tars.write(sample)
    left = tally.counts["num_samples"]
    if not left:
        found = f"; {num_missing} pictures are missing" if num_missing else ""
        raise ValueError(f"the source holds no samples{found}: check its path and split")
    shards = []
    for number in range(math.ceil(left / samples_per_shard)):
        path = folder / f"{number:05d}.tar"
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        count = min(left - number * samples_per_shard, samples_per_shard)
        shard = {"name": path.name, "num_samples": count, "sha256": sha256}
        shards.append({**shard, "num_bytes": path.stat().st_size})
    index = {
        "version": VERSION,
        "shards": shards,
        **tally.as_dict(),
        "num_missing": num_missing,
        "sha256": hashlib.sha256("\n".join(s["sha256"] for s in shards).encode()).hexdigest(),
    }
    sizes = {shard["name"]: shard["num_samples"] for shard in shards}
    for name, value in ((SIZES, sizes), (INDEX, index)):
        (folder / name).write_text(json.dumps(value, indent=1) + "\n")
    return index


def _written_before(folder: Path) -> list[str]:
    """The files that an earlier version, which left no mark, wrote into a folder of shards."""
    try:
        shards = read_index(folder)["shards"]
        return [INDEX, SIZES, *(str(shard["name"]) for shard in shards)]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
