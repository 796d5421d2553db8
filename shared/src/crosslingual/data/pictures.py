"""Encoded pictures to tensors."""

import io
import struct

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def decode_picture(data: bytes, resolution: int) -> Tensor:
    """Decodes a JPEG, PNG or WebP as `fit_picture` fits it: (3, resolution, resolution) float32 in
    [-1, 1].

    Raises:
        ValueError: it is broken, or has more than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    return pixels_to_images(np.stack([decode_pixels(data, resolution)]))[0]


def decode_pixels(data: bytes, resolution: int) -> np.ndarray:
    """The same as (resolution, resolution, 3) bytes, which many pictures are stacked from."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(f"oversized picture: {image.width}x{image.height} pixels")
            # to twice the size, as for Pillow's thumbnails: less to decode, as good a picture
            image.draft("RGB", (2 * resolution, 2 * resolution))
            return fit_picture(image, resolution)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("oversized picture: beyond Pillow's limit") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError("broken picture: no JPEG, PNG or WebP") from error
    # all that 48,000 pictures with changed bytes made Pillow raise
    except (OSError, SyntaxError, EOFError, TypeError, struct.error) as error:
        raise ValueError(f"broken picture: {error}") from error


def pixels_to_images(pixels: np.ndarray) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) float32 in [-1, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return images.float().div_(127.5).sub_(1)


def fit_picture(image: Image.Image, resolution: int) -> np.ndarray:
    """An open picture as (resolution, resolution, 3) bytes: upright, RGB on white, shorter side
    resized, centre cropped.
    """
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    fitted = image.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fitted)
