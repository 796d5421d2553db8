"""Small tar shards for tests, in our layout and in any other, and loaders of them."""

import io
import itertools
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from crosslingual.data.loader import ShardLoader

Members = list[tuple[str, bytes]]
"""Names and bytes of a tar's files."""


def picture(color: tuple[int, int, int] = (250, 20, 40), size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture of one colour, as PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def sample(
    key: str, image: bytes | None = None, languages: Iterable[str] = ("en", "de")
) -> Members:
    """The members of one sample in our layout; its key is a number."""
    captions = {language: [f"{language} {key}"] for language in languages}
    fields = {"captions": captions, "parallel": True, "culture": None, "number": int(key)}
    return [(f"{key}.png", image or picture()), (f"{key}.json", json.dumps(fields).encode())]


def samples(count: int) -> Members:
    """The members of samples 0000, 0001, ..."""
    return [member for number in range(count) for member in sample(f"{number:04d}")]


def write_tar(path: Path, members: Members, form: int = tarfile.DEFAULT_FORMAT) -> Path:
    """A tar of members in the given order."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_folder(folder: Path, sizes: list[int], replaced: dict[int, Members] | None = None) -> str:
    """Shards of the given sizes with keys counted through; some samples are replaced."""
    folder.mkdir()
    numbers = itertools.count()
    for shard, size in enumerate(sizes):
        rows = [
            (replaced or {}).get(n, sample(f"{n:04d}")) for n in itertools.islice(numbers, size)
        ]
        write_tar(folder / f"{shard:05d}.tar", list(itertools.chain(*rows)))
    return str(folder)


def open_loader(shards: str, **options: Any) -> ShardLoader:
    """A loader of pictures of 8 x 8 pixels."""
    defaults = {"batch_size": 4, "seed": 3, "resolution": 8, "languages": ["en", "de"]}
    return ShardLoader(shards, **{**defaults, **options})


def take_keys(loader: ShardLoader, num_steps: int, start_step: int = 0) -> list[list[str]]:
    """The keys of some batches."""
    return [batch["keys"] for batch in itertools.islice(loader.batches(start_step), num_steps)]
