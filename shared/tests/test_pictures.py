"""Decoding: what a picture looks like to the models, and what is refused."""

import io

import torch
from PIL import Image

from crosslingual.data.pictures import decode_picture


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
