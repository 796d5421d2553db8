"""Decoding: what a picture looks like to the models, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crosslingual.data.pictures import (
    decode_picture,
    decode_pixels,
    fit_picture,
    open_picture,
    picture_files,
    picture_size,
)
from crosslingual.data.records import picture_kind

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
WIDE_RAMP = RAMP.astype(np.uint16) * 257
GREY = Image.fromarray(RAMP)
BLACK = [Image.new("L", (16, 16))]


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def sixteen_bits(**options: Any) -> bytes:
    return encode(Image.fromarray(WIDE_RAMP), "TIFF", **options)


def big_endian() -> Image.Image:
    return Image.frombytes("I;16B", (16, 16), WIDE_RAMP.astype(">u2").tobytes())


def negative() -> bytes:
    """A TIFF whose tag 262 says that 0 is white."""
    tag = bytes.fromhex("0601 0300 0100 0000")
    return encode(Image.fromarray(65535 - WIDE_RAMP), "TIFF").replace(tag + b"\1", tag + b"\0")


def cmyk(form: str, **options: Any) -> bytes:
    black = Image.fromarray(255 - RAMP)
    return encode(Image.merge("CMYK", [*BLACK * 3, black]), form, **options)


RAMPS = {
    "PNG of 16 bits": encode(Image.fromarray(WIDE_RAMP), "PNG"),
    "TIFF of 16 bits": sixteen_bits(),
    "TIFF of 16 bits, big-endian": encode(big_endian(), "TIFF"),
    "TIFF of 16 bits, white is 0": negative(),
    "PNG of grey and alpha": encode(
        Image.merge("LA", [GREY, Image.new("L", (16, 16), 255)]), "PNG"
    ),
    "PNG with a palette": encode(GREY.convert("P"), "PNG"),
    "BMP": encode(GREY, "BMP"),
    "TIFF, LZW": encode(GREY, "TIFF", compression="tiff_lzw"),
    "TIFF of CMYK": cmyk("TIFF"),
    "JPEG of CMYK": cmyk("JPEG", quality=100),
    "AVIF": encode(GREY.convert("RGB"), "AVIF", quality=100),
    "animated GIF": encode(GREY, "GIF", save_all=True, append_images=BLACK),
    "animated PNG": encode(GREY, "PNG", save_all=True, append_images=BLACK),
    "animated WebP": encode(GREY, "WEBP", lossless=True, save_all=True, append_images=BLACK),
    "TIFF of two pages": encode(GREY, "TIFF", save_all=True, append_images=BLACK),
}


@pytest.mark.parametrize("name", RAMPS)
def test_a_grey_ramp_is_the_same_ramp_in_every_format(name: str) -> None:
    """Of 16 bits, of the first of many frames, of inks: nothing is clipped, nothing dropped."""
    ramp = np.repeat(RAMP[..., None], 3, axis=2)
    assert np.array_equal(decode_pixels(RAMPS[name], 16), ramp)
    assert np.array_equal(np.asarray(open_picture(RAMPS[name])), ramp)
    assert np.array_equal(fit_picture(Image.open(io.BytesIO(RAMPS[name])), 16), ramp)
    assert picture_kind(RAMPS[name]) in ("png", "tif", "jpg", "bmp", "avif", "gif", "webp")


def test_sixteen_bits_keep_their_rotation_and_transparency() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(WIDE_RAMP), "PNG", exif=exif)
    assert np.array_equal(decode_pixels(data, 16)[..., 0], np.rot90(RAMP, -1))
    clear = encode(Image.fromarray(WIDE_RAMP), "PNG", transparency=0)
    assert decode_pixels(clear, 16)[0, 0, 0] == 255 and decode_pixels(clear, 16)[0, 1, 0] == 1


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pictures_without_a_fixed_range_are_refused_by_name(mode: str) -> None:
    image = Image.new(mode, (8, 8))
    for read in (lambda: decode_pixels(encode(image, "TIFF"), 8), lambda: fit_picture(image, 8)):
        with pytest.raises(ValueError, match=f"picture of mode {mode}: only 8 and 16 bits"):
            read()


def test_the_bound_of_pixels_is_met_before_anything_is_decoded() -> None:
    """By the head alone: no pixel stands behind it."""
    head = encode(Image.new("1", (9400, 9400)), "PNG")[:41]
    with pytest.raises(ValueError, match=r"oversized picture: 9400x9400 pixels, max_pixels is"):
        decode_pixels(head, 8)
    small = encode(Image.new("L", (30, 20)), "PNG")
    assert picture_size(small) == (30, 20)
    assert decode_pixels(small, 8, max_pixels=600).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="max_pixels is 599"):
        decode_pixels(small, 8, max_pixels=599)


def test_the_pictures_of_a_folder_are_all_of_them(tmp_path: Path) -> None:
    """By extension or content; a format that is not read is named, not left out."""
    (tmp_path / "b").mkdir()
    names = ["a.JPG", "b/c.gif", "b/d.tiff", "e.avif", "f.bmp", "photo v1.0"]
    for name in names:
        (tmp_path / name).write_bytes(RAMPS["BMP"])
    for name in ("notes.txt", "._a.JPG", "b/labels.csv", "empty"):
        (tmp_path / name).write_bytes(b"" if name == "empty" else b"BMW is a make of cars")
    assert [str(path.relative_to(tmp_path)) for path in picture_files(tmp_path)] == names
    (tmp_path / "b/phone.HEIC").write_bytes(b"")
    with pytest.raises(ValueError, match="phone.HEIC: heic pictures are not read; convert it"):
        picture_files(tmp_path)


def test_pictures_are_upright_cropped_and_on_white() -> None:
    """EXIF rotation, centre crop of the longer side, transparency, grey."""
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("blue", (10, 0, 30, 20))
    wide.paste("white", (10, 0, 30, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    buffer = io.BytesIO()
    wide.save(buffer, "PNG", exif=exif)
    image = decode_picture(buffer.getvalue(), 20)
    torch.testing.assert_close(image[:, 10, 10], torch.tensor([-1.0, -1.0, 1.0]))
    torch.testing.assert_close(image[:, 10, 18], torch.ones(3))  # the top is now at the right
    assert (image[2] == 1).all(), "red at the ends is cropped"
    for mode, color, expected in [("RGBA", (0, 0, 0, 0), 1.0), ("L", 255, 1.0), ("1", 0, -1.0)]:
        buffer = io.BytesIO()
        Image.new(mode, (30, 9), color).save(buffer, "PNG")
        assert (decode_picture(buffer.getvalue(), 8) == expected).all()


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    """The world's 64 px pictures are not resampled."""
    noise = Image.merge("RGB", [Image.effect_noise((16, 16), 90)] * 3)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    levels = (decode_picture(buffer.getvalue(), 16) + 1) * 127.5
    expected = torch.tensor(list(noise.tobytes())).view(16, 16, 3).permute(2, 0, 1)
    assert torch.equal(levels.round().long(), expected)
