"""Features of pictures: by a CLIP and by torch-fidelity's Inception, from lists and folders."""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel

from crosslingual.frozen.clip import load_clip
from crosslingual_benchmarks.metrics.features import (
    INCEPTION,
    clip_extractor,
    image_features,
    load_extractor,
)
from crosslingual_benchmarks.metrics.frechet import frechet_distance
from crosslingual_benchmarks.metrics.pictures import list_pictures, picture_batches
from crosslingual_worlds.drawn import WEIGHTS as TESTBED_WEIGHTS


def random_pictures(count, width=64, height=64):
    draw = np.random.default_rng(width)
    coarse = draw.integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    return [Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC) for p in coarse]


def test_clips_features_equal_transformers():
    pictures = random_pictures(7)
    found = image_features(pictures, load_extractor("testbed:clip"), batch_size=3)
    folder = TESTBED_WEIGHTS / "clip"
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model.get_image_features(**pixels).pooler_output
    torch.testing.assert_close(found.rows_ND, expected, atol=1e-4, rtol=1e-4)
    assert found.rows_ND.shape == (7, 128)
    assert found.protocol == {
        "extractor": "testbed:clip",
        "layer": "projected",
        "resize": "shorter side bicubic, centre crop to 64",
    }


def test_the_resize_alone_moves_fid():
    extractor = load_extractor("testbed:clip")
    pictures = random_pictures(40, 256, 256)
    nearest = [picture.resize((64, 64), Image.Resampling.NEAREST) for picture in pictures]
    first, second = (image_features(part, extractor).rows_ND for part in (pictures, nearest))
    assert frechet_distance(first, first).value == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, second).value > 1e-3


def test_folders_in_genevals_layout_give_their_samples_alone(tmp_path):
    pictures = random_pictures(4)
    for place, picture in enumerate(pictures):
        folder = tmp_path / f"{place // 2:05d}"
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        (folder / "metadata.jsonl").write_text('{"prompt": "x"}\n')
        picture.save(folder / "samples" / f"{place % 2:04d}.png")
        Image.new("RGB", (200, 100)).save(folder / "grid.png")
        (folder / "samples" / "partial.png").write_bytes(b"")
    extractor = load_extractor("testbed:clip")
    found = image_features(tmp_path, extractor)
    assert torch.equal(found.rows_ND, image_features(pictures, extractor).rows_ND)
    (tmp_path / "00001" / "samples" / "0000.png").unlink()
    with pytest.raises(ValueError, match="3 pictures for 4"):
        list_pictures(tmp_path, num_expected=4)
    (tmp_path / "00001" / "samples" / "0001.png").unlink()
    with pytest.raises(FileNotFoundError, match="no pictures below .*00001/samples"):
        image_features(tmp_path, extractor)


def test_plain_folders_are_read_in_the_order_of_their_paths(tmp_path):
    pictures = random_pictures(3)
    (tmp_path / "part").mkdir()
    for name, picture in zip(("a.png", "b.PNG", "part/a.webp"), pictures, strict=True):
        picture.save(tmp_path / name, lossless=True)
    (tmp_path / "notes.txt").write_text("no picture")
    found = list_pictures(str(tmp_path))
    assert [str(Path(path).relative_to(tmp_path)) for path in found] == [
        "a.png",
        "b.PNG",
        "part/a.webp",
    ]
    pixels = np.concatenate(list(picture_batches(found, 64, 2)))
    np.testing.assert_array_equal(pixels, np.stack([np.asarray(p) for p in pictures]))


def test_no_picture_of_a_folder_is_left_out(tmp_path):
    formats = "png jpg jpeg jfif webp gif bmp tiff tif avif".split()
    for name in formats:
        random_pictures(1)[0].save(tmp_path / f"{name}.{name}")
    (tmp_path / "without_extension").write_bytes((tmp_path / "png.png").read_bytes())
    found = list_pictures(tmp_path)
    assert len(found) == len(formats) + 1
    assert sum(len(batch) for batch in picture_batches(found, 64, 4)) == len(found)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match="a.heic: heic pictures are not read"):
        list_pictures(tmp_path)


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path):
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    (pixels,) = picture_batches(list_pictures(tmp_path), 64, 1)
    np.testing.assert_array_equal(pixels[0, ..., 0], grey >> 8)


def test_pictures_that_are_missing_broken_or_too_few_are_refused(tmp_path):
    extractor = load_extractor("testbed:clip")
    with pytest.raises(FileNotFoundError, match="no folder"):
        image_features(tmp_path / "none", extractor)
    with pytest.raises(FileNotFoundError, match="no pictures below"):
        image_features(tmp_path, extractor)
    with pytest.raises(FileNotFoundError, match="picture 1 is missing: no file .*b.png"):
        image_features([random_pictures(1)[0], tmp_path / "b.png"], extractor)
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="b.png: broken picture"):
        image_features([random_pictures(1)[0], tmp_path / "b.png"], extractor)
    with pytest.raises(ValueError, match="1 pictures: distances between sets need 2"):
        image_features(random_pictures(1), extractor)


def test_features_that_are_not_finite_are_refused():
    clip = load_clip("testbed:clip")
    clip.model.visual_projection.weight[3] = float("nan")
    with pytest.raises(ValueError, match=r"features of picture 0 are not finite \(5 of 5"):
        image_features(random_pictures(5), clip_extractor(clip))


def test_a_clips_resolution_is_refused():
    with pytest.raises(ValueError, match="reads pictures at its own size"):
        load_extractor("testbed:clip", resolution=224)


class MeanColour(nn.Module):
    """Takes and gives what torch-fidelity's Inception does, and knows colours alone."""

    def __init__(self, name, layers):
        super().__init__()
        assert (name, layers) == ("inception-v3-compat", ["2048"])
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pixels_B3HW):
        assert pixels_B3HW.dtype == torch.uint8 and pixels_B3HW.shape[1] == 3
        return (pixels_B3HW.float().mean(dim=(2, 3)) * self.weight,)


@pytest.fixture
def fake_fidelity(monkeypatch):
    module = ModuleType("torch_fidelity")
    module.FeatureExtractorInceptionV3 = MeanColour
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)


def test_inception_gets_bytes_as_they_are_or_at_a_resolution(fake_fidelity):
    pictures = random_pictures(5)
    expected = torch.tensor(np.stack([np.asarray(p).mean(axis=(0, 1)) for p in pictures]))
    found = image_features(pictures, load_extractor(INCEPTION), batch_size=2)
    torch.testing.assert_close(found.rows_ND.double(), expected, atol=1e-3, rtol=0)
    assert found.rows_ND.requires_grad is False
    assert found.protocol == {
        "extractor": "inception-v3-compat",
        "layer": "2048",
        "resize": "none, 64, then TensorFlow 1 bilinear to 299",
    }
    found = image_features(pictures, load_extractor(INCEPTION, resolution=32))
    assert found.protocol["resize"].startswith("shorter side bicubic, centre crop to 32, then")
    torch.testing.assert_close(found.rows_ND.double(), expected, atol=2, rtol=0)


@pytest.mark.parametrize("as_files", [False, True])
def test_inception_refuses_pictures_of_several_sizes_as_they_are(fake_fidelity, tmp_path, as_files):
    def given(pictures):
        paths = [tmp_path / f"{place}.png" for place in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path)
        return paths if as_files else pictures

    extractor = load_extractor(INCEPTION)
    mixed = given([*random_pictures(2), *random_pictures(1, 72, 72)])
    with pytest.raises(ValueError, match="picture 2 has 72 x 72 pixels and picture 0 has 64 x 64"):
        image_features(mixed, extractor)
    with pytest.raises(ValueError, match="picture 0 has 80 x 64"):
        image_features(given(random_pictures(2, 80, 64)), extractor)
    assert image_features(mixed, load_extractor(INCEPTION, resolution=64)).rows_ND.shape == (3, 3)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # an import of it now fails
    with pytest.raises(ValueError, match="pip install torch-fidelity"):
        load_extractor(INCEPTION)


@pytest.fixture
def random_inception(monkeypatch):
    """torch-fidelity's network with random weights instead of fetched ones."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            stub = MagicMock(__spec__=ModuleSpec(f"torchvision{name}", None))
            monkeypatch.setitem(sys.modules, f"torchvision{name}", stub)
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(network, "load_state_dict", lambda *_: None)
    return network


def test_the_true_inception_reads_what_it_is_given(random_inception):
    torch.manual_seed(0)
    pictures = random_pictures(3)
    found = image_features(pictures, load_extractor(INCEPTION)).rows_ND
    torch.manual_seed(0)
    pixels = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)
    (expected,) = random_inception(INCEPTION, ["2048"])(pixels)
    assert found.shape == (3, 2048)
    torch.testing.assert_close(found, expected)
