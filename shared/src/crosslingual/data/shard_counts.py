"""What the files beside shards say of them, so that they need not be walked at the start."""

import json
from collections import Counter
from typing import Any

import fsspec

from crosslingual.data.shards import SIZES
from crosslingual.data.tars import INDEX


def shard_sizes(urls: list[str]) -> dict[str, int]:
    """Samples of each shard, by open_clip's `sizes.json` or img2dataset's `_stats.json`."""
    sizes: dict[str, int] = {}
    for folder, names in _by_folder(urls).items():
        known = _read_beside(f"{folder}{names[0]}", SIZES)
        for name in names:
            size = known.get(name)
            if size is None:
                stats = _read_beside(f"{folder}{name}", f"{name.removesuffix('.tar')}_stats.json")
                size = stats.get("successes")
            if size is not None:
                sizes[f"{folder}{name}"] = int(size)
    return sizes


def language_counts(urls: list[str]) -> tuple[Counter[str], int]:
    """Samples by language, and in all, of the folders of ours that are read whole."""
    counts: Counter[str] = Counter()
    num_samples = 0
    for folder, names in _by_folder(urls).items():
        index = _read_beside(f"{folder}{names[0]}", INDEX)
        if {shard["name"] for shard in index.get("shards", [])} == set(names):
            counts.update(index["languages"])
            num_samples += index["num_samples"]
    return counts, num_samples


def _by_folder(urls: list[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for url in urls:
        folder, slash, name = url.rpartition("/")
        folders.setdefault(folder + slash, []).append(name)
    return folders


def _read_beside(url: str, name: str) -> dict[str, Any]:
    """A JSON file in a shard's folder; empty where there is none."""
    filesystem, path = fsspec.core.url_to_fs(url)
    beside = f"{path.rpartition('/')[0]}/{name}"
    if not filesystem.exists(beside):
        return {}
    try:
        return json.loads(filesystem.cat_file(beside))
    except ValueError as error:
        raise ValueError(f"{beside} is broken ({error}); write the shards again") from error
