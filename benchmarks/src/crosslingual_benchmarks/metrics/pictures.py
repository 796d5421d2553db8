"""Pictures as the metrics read them: Pillow's, files or a folder, in batches, none missing."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from crosslingual.data.pictures import (
    decode_pixels,
    fit_picture,
    picture_files,
    picture_size,
    pixels_to_images,
)

# B pictures of a batch, R edge of a square picture in pixels

FIT = "shorter side bicubic, centre crop"  # what `picture_batches` does, in a protocol's words

Picture = Image.Image | str | Path
Pictures = str | Path | Sequence[Picture]


def list_pictures(pictures: Pictures, num_expected: int | None = None) -> list[Picture]:
    """The pictures of a folder in the order of their paths, or those given, all of them there.

    A folder in GenEval's layout (`00000/metadata.jsonl`) gives `00000/samples/0000.png` and so on,
    without its grids; another folder gives all pictures below it.
    `num_expected`: how many there must be, where the prompts say.

    Raises:
        FileNotFoundError: no such folder, a folder without pictures, or a file is missing.
        ValueError: an entry is not a picture, a file has a format that is not read, or there are
            not as many as expected.
    """
    found = _pictures_below(Path(pictures)) if isinstance(pictures, (str, Path)) else list(pictures)
    for place, picture in enumerate(found):
        if isinstance(picture, (str, Path)):
            if not Path(picture).is_file():
                raise FileNotFoundError(f"picture {place} is missing: no file {picture}")
        elif not isinstance(picture, Image.Image):
            raise ValueError(f"picture {place} is {picture!r}: give Pillow's pictures or paths")
    if num_expected is not None and len(found) != num_expected:
        raise ValueError(
            f"{len(found)} pictures for {num_expected}: the number over fewer pictures is another; "
            "generate the missing ones, or leave their rows out everywhere"
        )
    return found


def _pictures_below(folder: Path) -> list[Picture]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give one of pictures")
    prompts = sorted(path.parent for path in folder.glob("*/metadata.jsonl"))
    found: list[Picture] = []
    for part in [prompt / "samples" for prompt in prompts] or [folder]:
        here = picture_files(part)
        if prompts:  # beside them a stopped run may have left part of one
            here = [p for p in here if p.stem.isdigit()]
        if not here:
            raise FileNotFoundError(f"no pictures below {part}: generate them first")
        found += here
    return found


def square_size(pictures: Sequence[Picture]) -> int:
    """The edge in pixels that all pictures share, so that they can be read as they are.

    Raises:
        ValueError: they are not square, or of several sizes.
    """
    first: tuple[int, int] | None = None
    for place, picture in enumerate(pictures):
        is_open = isinstance(picture, Image.Image)
        size = picture.size if is_open else _read(picture_size, picture)
        first = first or size
        if size[0] != size[1] or size != first:
            raise ValueError(
                f"picture {place} has {size[0]} x {size[1]} pixels and picture 0 has {first[0]} x "
                f"{first[1]}: give a resolution that all are brought to"
            )
    if first is None:
        raise ValueError("no pictures are given")
    return first[0]


def picture_batches(
    pictures: Sequence[Picture], resolution: int, batch_size: int
) -> Iterator[np.ndarray]:
    """Pictures as (B, R, R, 3) bytes: upright, RGB on white, shorter side resized (bicubic), centre
    cropped; files are opened a batch at a time.

    Raises:
        ValueError: a picture is broken; it is named.
    """
    for start in range(0, len(pictures), batch_size):
        yield np.stack([_pixels(p, resolution) for p in pictures[start : start + batch_size]])


def image_batches(
    pictures: Sequence[Picture], resolution: int, batch_size: int
) -> Iterator[Tensor]:
    """The same as (B, 3, R, R) fp32 in [-1, 1], as `FrozenCLIP` takes them."""
    yield from map(pixels_to_images, picture_batches(pictures, resolution, batch_size))


def _pixels(picture: Picture, resolution: int) -> np.ndarray:
    if isinstance(picture, Image.Image):
        return fit_picture(picture, resolution)
    return _read(decode_pixels, picture, resolution)


def _read(decode: Callable[..., Any], path: str | Path, *args: Any) -> Any:
    """What a decoder makes of a file, which its errors name."""
    try:
        return decode(Path(path).read_bytes(), *args)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
