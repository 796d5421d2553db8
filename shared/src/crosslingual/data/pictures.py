"""Encoded pictures to tensors: the one decoder, of shards, folders and benchmarks alike.

JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read; of several frames or pages the first. Sixteen
bits a channel become eight by their upper byte, as Pillow does it for colour. Pictures of 32-bit
numbers (Pillow's modes `I` and `F`) are refused: nothing says which number is white.
"""

import contextlib
import io
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile
from torch import Tensor

from crosslingual.data.records import NOT_READ, PICTURES, picture_kind

MAX_PIXELS = 64 * 2**20
"""Pixels that a picture may have by default: one of 64 million takes about 0.7 GB to decode."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV I;16 I;16L I;16B I;16N".split()
# Pillow passes on whatever its decoders meet in a damaged file.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError)
_DAMAGE += (OSError, RuntimeError, SyntaxError, TypeError, struct.error, zlib.error)


def decode_picture(data: bytes, resolution: int) -> Tensor:
    """A picture as `fit_picture` fits it: (3, resolution, resolution) float32 in [-1, 1]."""
    return pixels_to_images(np.stack([decode_pixels(data, resolution)]))[0]


def decode_pixels(data: bytes, resolution: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The same as (resolution, resolution, 3) bytes, which many pictures are stacked from."""
    with _opened(data, max_pixels) as image:
        # to twice the size, as for Pillow's thumbnails: less to decode, as good a picture
        image.draft("RGB", (2 * resolution, 2 * resolution))
        return fit_picture(image, resolution)


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture as `to_rgb` makes it.

    Raises:
        ValueError: it is broken, of a format or mode that is not read, or larger than `max_pixels`
            or than Pillow's own limit (179 million).
    """
    with _opened(data, max_pixels) as image:
        return to_rgb(image)


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture as it is stored, by its head alone."""
    with _opened(data, MAX_PIXELS) as image:
        return image.size


def check_mode(sample: Mapping[str, Any]) -> None:
    """Refuses what `to_rgb` refuses of a WebDataset sample's picture, by its head; of the formats
    that are read, TIFF alone has such modes.
    """
    if "tif" in sample:
        with _opened(sample["tif"], sys.maxsize) as image:
            _refuse_mode(image)


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted: by their extension, or else by their first bytes.

    Raises:
        ValueError: one is of a format that is not read; leaving it out would not be noticed.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        extension = path.suffix[1:].lower()
        if path.is_dir() or path.name.startswith("._"):  # a Mac's notes on the file
            continue
        if extension in NOT_READ:
            raise ValueError(
                f"{path}: {extension} pictures are not read; convert it to PNG or JPEG, or take it "
                "out of the folder"
            )
        if extension in PICTURES or (path.is_file() and picture_kind(_head(path))):
            found.append(path)
    return found


def pixels_to_images(pixels: np.ndarray) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) float32 in [-1, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return images.float().div_(127.5).sub_(1)


def fit_picture(image: Image.Image, resolution: int) -> np.ndarray:
    """An open picture as (resolution, resolution, 3) bytes: as `to_rgb` makes it, shorter side
    resized, centre cropped.
    """
    image = to_rgb(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    fitted = image.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fitted)


def to_rgb(image: Image.Image) -> Image.Image:
    """An open picture of any mode as RGB, upright, on white.

    Raises:
        ValueError: it has 32-bit numbers, which have no fixed range, or an unknown colour space.
    """
    _refuse_mode(image)
    num_bits, is_negative = 16, False
    if isinstance(image, TiffImageFile):
        num_bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0]
        is_negative = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = _eight_bits(image, num_bits)
        image = ImageOps.invert(image) if is_negative else image  # of 8 bits Pillow does so itself
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _refuse_mode(image: Image.Image) -> None:
    if image.mode not in _MODES:
        raise ValueError(
            f"picture of mode {image.mode}: only 8 and 16 bits a channel are read, grey, RGB or "
            "CMYK; write it again as PNG"
        )


def _eight_bits(image: Image.Image, num_bits: int) -> Image.Image:
    """A grey picture of 16 (or 12) bits with 8; `convert` would make all above 255 white."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> (num_bits - 8)).astype(np.uint8))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Pillow's picture, whose faults are ValueErrors."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(
                    f"oversized picture: {image.width}x{image.height} pixels, max_pixels is "
                    f"{max_pixels}; make it smaller or allow more"
                )
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("oversized picture: beyond Pillow's limit") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"broken picture: no {', '.join(_FORMATS[:-1])} or AVIF") from error
    except _DAMAGE as error:
        words = str(error).replace("\n", " ") or type(error).__name__
        raise ValueError(f"broken picture: {words}") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)
