"""Shards: tar files of samples, in WebDataset's layout, with an index of what they hold.

A folder of ours holds `00000.tar`, ..., `sizes.json` (as open_clip reads it) and `index.json`. The
same records give the same bytes. Shards of others are read as they are.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crosslingual.data.index import SIZES, VERSION, Tally, check_sizes, read_index
from crosslingual.data.records import (
    Record,
    describe_faults,
    names_found,
    record_to_sample,
    sample_to_record,
)
from crosslingual.data.tars import CUT_OFF, DAMAGED, FOREIGN, INDEX, expand_shards, iter_samples
from crosslingual.data.text import fault_of, printable
from crosslingual.files import sha256_of
from crosslingual.folders import publish_folder

log = logging.getLogger(__name__)

__all__ = ["check_sizes", "expand_shards", "iter_shards", "iter_usable", "read_index"]
__all__ += ["write_shards"]


def write_shards(
    records: Iterable[Record],
    output_dir: str | Path,
    *,
    samples_per_shard: int = 10_000,
    overwrite: bool | None = False,
    allow_missing: bool = False,
    faults: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Writes records as shards, in their order; the folder appears whole or not at all.

    Args:
        records: what to write.
        output_dir: a folder that is new or empty.
        samples_per_shard: the last shard may hold fewer.
        overwrite: replace shards that `output_dir` holds, once the new ones are complete; None as
            in `publish_folder`, for verbs without the flag.
        allow_missing: leave out records whose picture is missing or no picture, and what is damaged
            of a shard that is read, and count them.
        faults: where the sources of `records` put the samples that they leave out, reason by name.
            Records that were read from shards, and whose pictures are no pictures, go there too;
            without it they are errors.

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
        index.update(_write_all(records, partial, samples_per_shard, allow_missing, faults))
        facts = ("num_bytes", "sha256")
        return {each["name"]: {name: each[name] for name in facts} for each in index["shards"]}

    publish_folder(folder, fill, kind="shards", overwrite=overwrite, earlier=_written_before)
    return index


def iter_shards(
    paths: Iterable[str], *, faults: dict[str, str] | None = None, **options: Any
) -> Iterator[Record]:
    """Reads the records of shards, in order; the options are those of `sample_to_record`.

    With `faults`, what cannot be read goes there, reason by name, and reading goes on.

    Raises:
        ValueError: without `faults`, a shard or a sample cannot be read; both are named.
    """
    for path in paths:
        for sample in iter_samples(path, faults):
            try:
                record = sample_to_record(sample, **options)
            except ValueError as error:
                if faults is None:
                    found = ", ".join(names_found(sample))
                    raise ValueError(f"{path}: {error} (the sample holds {found})") from error
                key = sample["__key__"]
                faults[f"{path}: {printable(key)}"] = str(error).removeprefix(f"sample {key!r}: ")
                continue
            yield record


def iter_usable(shards: str, **options: Any) -> Iterator[Record]:
    """The records of shards that can be read; how many cannot, and why, is logged at the end."""
    faults: dict[str, str] = {}
    yield from iter_shards(expand_shards(shards), faults=faults, **options)
    if lost := {name: reason for name, reason in faults.items() if reason != FOREIGN}:
        log.warning("%s: skipped %d samples: %s", shards, len(lost), describe_faults(lost))


def _write_all(
    records: Iterable[Record],
    folder: Path,
    samples_per_shard: int,
    allow_missing: bool,
    faults: dict[str, str] | None,
) -> dict[str, Any]:
    import webdataset  # imports torch, as the decoder does: seconds that only writing pays

    from crosslingual.data.pictures import check_mode

    tally, origins = Tally(), {}
    left_out: dict[str, str] = {} if faults is None else faults
    pattern = str(folder.absolute()).replace("%", "%%") + "/%05d.tar"
    # owner, mode and time are constants, so that the same samples give the same bytes
    constants = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}
    limits = {"maxcount": samples_per_shard, "maxsize": math.inf, "verbose": 0}
    with webdataset.ShardWriter(pattern, **limits, **constants) as tars:
        for record in records:
            origin = str(record.image) if isinstance(record.image, Path) else record.origin
            if record.key in origins:
                if faults is not None and record.origin and record.origin == origins[record.key]:
                    left_out[f"{origin}: {record.key}"] = "its key comes twice in this shard"
                    continue
                raise ValueError(_twice(record.key, origins[record.key], origin))
            origins[record.key] = origin
            try:
                sample = record_to_sample(record)
                with fault_of(f"record {record.key!r}"):
                    check_mode(sample)
            except (FileNotFoundError, ValueError) as error:
                if not allow_missing and (faults is None or isinstance(record.image, Path)):
                    raise
                reason = str(error).removeprefix(f"record {record.key!r}: ")
                left_out[f"{origin}: {record.key}" if origin else record.key] = reason
                continue
            tally.add(record)
            tars.write(sample)
    left = tally.counts["num_samples"]
    for name, reason in left_out.items():
        if reason in (CUT_OFF, DAMAGED) and not allow_missing:
            raise ValueError(
                f"{name}: {reason}: it is truncated or no tar file; copy it again, or keep what is "
                "whole of it by --allow_missing"
            )
    if not left:
        found = f" that can be used: {describe_faults(left_out)}" if left_out else ""
        raise ValueError(f"the source holds no samples{found}: check its path and split")
    shards = []
    for number in range(math.ceil(left / samples_per_shard)):
        path = folder / f"{number:05d}.tar"
        count = min(left - number * samples_per_shard, samples_per_shard)
        shard = {"name": path.name, "num_samples": count, "sha256": sha256_of(path)}
        shards.append({**shard, "num_bytes": path.stat().st_size})
    index = {
        "version": VERSION,
        "shards": shards,
        **tally.as_dict(),
        "num_missing": sum(reason != FOREIGN for reason in left_out.values()),
        "sha256": hashlib.sha256("\n".join(s["sha256"] for s in shards).encode()).hexdigest(),
    }
    sizes = {shard["name"]: shard["num_samples"] for shard in shards}
    for name, value in ((SIZES, sizes), (INDEX, index)):
        (folder / name).write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    return index


def _twice(key: str, first: str, second: str) -> str:
    """Words for two samples of one key."""
    where = f", of {first} and of {second}" if first != second else f" in {first}" * bool(first)
    return (
        f"key {key!r} comes twice{where}: rename one; data sets whose keys agree can be written to "
        "folders of their own and read together, joined by '::'"
    )


def _written_before(folder: Path) -> list[str]:
    """The files that an earlier version, which left no mark, wrote into a folder of shards."""
    try:
        return [INDEX, SIZES, *(shard["name"] for shard in read_index(folder)["shards"])]
    except (FileNotFoundError, ValueError):
        return []
