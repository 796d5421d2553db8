"""What the files beside shards say about them: counts, sizes, languages.

`index.json` is ours, `sizes.json` is open_clip's, `NAME_stats.json` is img2dataset's. With one of
them the loader need not walk every shard at its start.
"""

import contextlib
import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from crosslingual.data.addresses import at_address
from crosslingual.data.languages import match_language, parse_language
from crosslingual.data.records import Record, sample_to_record
from crosslingual.data.tars import INDEX, Shard
from crosslingual.data.text import fault_of, parse_json
from crosslingual.files import check_fields, sha256_of
from crosslingual.folders import check_folder

SIZES = "sizes.json"
VERSION = 1
TEXTS = ("json", "txt")  # members that captions are in
NUM_COUNTED = 10_000  # samples whose languages are counted where no index says them
NUM_PROBED = 64  # the same at an address, where a sample is a request


class _Named(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(pattern="^[^/]*$")]


class _Shard(_Named):
    num_bytes: int
    sha256: str


_FIELDS = {"num_samples": int, "languages": dict[str, int], "sha256": str | None}


class Tally:
    """What records hold, counted one by one."""

    def __init__(self) -> None:
        """Starts with no records."""
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
        """The counts as `index.json` has them, `languages` being samples with a caption in each."""
        return {**self.counts, "languages": dict(sorted(self.languages.items()))}


def read_index(folder: str | Path) -> dict[str, Any]:
    """Reads `index.json` of a folder that `write_shards` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken, or of another kind or version.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run `crosslingual shards` to write shards with one")
    index = _read_json(str(path))
    if "shards" not in index or index.get("version") != VERSION:
        raise ValueError(f"{path} is no index of shards of version {VERSION}")
    return check_fields(index, {**_FIELDS, "shards": list[_Shard]}, path, "write the shards again")


def shards_hash(folder: str | Path) -> str | None:
    """The hash that the index of a folder of shards says; None where it has no index."""
    return read_index(folder).get("sha256") if (Path(folder) / INDEX).is_file() else None


def check_sizes(folder: str | Path, index: Mapping[str, Any]) -> None:
    """Compares the shards on disk with their index, by size."""
    for shard in index["shards"]:
        path = Path(folder) / shard["name"]
        found = path.stat().st_size if path.is_file() else 0
        if found != shard["num_bytes"]:
            expected = f"its index says {shard['num_bytes']}"
            raise ValueError(f"{path} has {found} bytes, {expected}; copy or write it again")


def check_hashes(folder: str | Path, index: Mapping[str, Any]) -> None:
    """Compares the shards on disk with their index, byte by byte: about a second a gigabyte."""
    check_sizes(folder, index)
    for shard in index["shards"]:
        check_hash(Path(folder) / shard["name"], shard["sha256"])


def check_hash(path: Path, expected: str) -> None:
    """Compares a shard with the SHA-256 that its index says."""
    if (found := sha256_of(path)) != expected:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., its index says "
            f"{expected[:12]}...; copy or write it again (--verify_data false reads what it can)"
        )


def shard_hashes(urls: list[str]) -> dict[str, str]:
    """The SHA-256 of the local shards that an `index.json` beside them lists."""
    hashes: dict[str, str] = {}
    read = functools.cache(_read_json)
    for url in (url for url in urls if "://" not in url):
        folder, slash, name = url.rpartition("/")
        index = read(folder + slash + INDEX)
        found = {shard["name"]: shard.get("sha256") for shard in index.get("shards", [])}
        if isinstance(found.get(name), str):
            hashes[url] = found[name]
    return hashes


def shard_sizes(urls: list[str]) -> dict[str, int]:
    """Samples by shard, for the shards whose number `sizes.json` or `NAME_stats.json` says.

    Raises:
        ValueError: a number is none, or more than the shard has room for.
    """
    read = functools.cache(_read_json)
    sizes: dict[str, int] = {}
    for url in urls:
        folder, slash, name = url.rpartition("/")
        file = folder + slash + SIZES
        size = read(file).get(name)
        if size is None:
            file = url.removesuffix(".tar") + "_stats.json"
            size = read(file).get("successes")
        if size is None:
            continue
        path = Path(url)
        most = path.stat().st_size // 512 if "://" not in url and path.is_file() else 10**7
        if type(size) is not int or not 0 <= size <= most:
            raise ValueError(
                f"{file} says {size!r:.40} samples for {name}, which cannot be: correct or remove "
                "the file, without which samples are counted"
            )
        sizes[url] = size
    return sizes


def language_counts(urls: list[str]) -> tuple[Counter[str], int]:
    """Samples by language, and in all, where each folder has an index and is read whole."""
    names: dict[str, set[str]] = defaultdict(set)
    for url in urls:
        folder, slash, name = url.rpartition("/")
        names[folder + slash].add(name)
    counts: Counter[str] = Counter()
    num_samples = 0
    for folder, chosen in names.items():
        index = _read_json(folder + INDEX)
        if {shard["name"] for shard in index.get("shards", [])} != chosen:
            return Counter(), 0
        for language, count in index["languages"].items():
            with fault_of(folder + INDEX):
                counts[parse_language(language)] += count
        num_samples += index["num_samples"]
    return counts, num_samples


def count_languages(
    urls: list[str], wanted: Iterable[str] = (), **options: Any
) -> tuple[Counter[str], int, bool]:
    """Samples by language and in all, and whether others cannot have more languages.

    Says what the indexes say. Without them it reads the texts of local shards, to the end or until
    `NUM_COUNTED` samples have each language that is wanted; or of the first `NUM_PROBED` samples at
    an address. The options are those of `sample_to_record`.
    """
    counts, num_samples = language_counts(urls)
    if counts:
        return counts, num_samples, True
    is_local, wanted = not any("://" in url for url in urls), list(wanted)
    counts, num_samples = Counter(), 0
    for url in urls:
        with contextlib.closing(Shard(url)) as shard:
            for index in range(len(shard.samples)):
                if num_samples >= NUM_PROBED and not is_local:
                    return counts, num_samples, False
                if num_samples >= NUM_COUNTED and wanted:
                    if all(match_language(name, counts) for name in wanted):
                        return counts, num_samples, True
                with contextlib.suppress(ValueError):
                    record = sample_to_record(shard.read(index, TEXTS), **options)
                    counts.update(record.captions.keys())
                    num_samples += 1
    return counts, num_samples, True


def _read_json(url: str) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file. One that lists shards is an
    index, whose values are of the types that `write_shards` gives them. Index and sizes are as the
    folder's mark, if it has one, says: a changed number would lose samples in silence.
    """
    with at_address(url) as (filesystem, path):
        if not filesystem.exists(path):
            return {}
        data = filesystem.cat_file(path)
    remedy = "write the shards again"
    try:
        found = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{url} is broken ({error}); {remedy}") from error
    is_index = isinstance(found, dict) and "shards" in found
    check_fields(found, _FIELDS | {"shards": list[_Named]} if is_index else {}, url, remedy)
    if "://" not in url and Path(url).name in (INDEX, SIZES):
        check_folder(Path(url).parent, [Path(url).name])
    return found
