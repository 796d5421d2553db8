"""The frozen CLIP gives what transformers' own processor and features give."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from crosslingual.data.pictures import pixels_to_images
from crosslingual.frozen.clip import FrozenCLIP, clip_on_meta, clip_shape, load_clip
from crosslingual.frozen.encoders import encoder_on_meta, encoder_shape
from crosslingual_worlds.drawn import WEIGHTS as TESTBED_WEIGHTS

FOLDER = TESTBED_WEIGHTS / "clip"
MEAN, STD = [0.48, 0.45, 0.40], [0.27, 0.26, 0.28]  # unequal ones, as OpenAI's are


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The testbed's CLIP with a mean and deviation a channel."""
    folder = tmp_path_factory.mktemp("clip") / "model"
    shutil.copytree(FOLDER, folder)
    path = folder / "preprocessor_config.json"
    constants = json.loads(path.read_text()) | {"image_mean": MEAN, "image_std": STD}
    path.write_text(json.dumps(constants))
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> FrozenCLIP:
    return load_clip(str(folder))


def random_pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (72, 72), (81, 70)])
def test_picture_embeddings_equal_transformers(
    clip: FrozenCLIP, folder: Path, size: tuple[int, int]
) -> None:
    pixels = random_pictures(*size)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pictures = [Image.fromarray(picture) for picture in pixels]
    inputs = processor(pictures, do_resize=False, return_tensors="pt")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model.get_image_features(**inputs).pooler_output
    found = clip.encode_images(pixels_to_images(pixels))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.shape == (3, clip.width)


def test_text_embeddings_equal_transformers_whatever_stands_beside_them(
    clip: FrozenCLIP, folder: Path
) -> None:
    texts = ["a big red star", "a small blue ring above a large yellow moon", "x"]
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = clip.encode_texts(texts)
    for text, row in zip(texts, found, strict=True):
        with torch.no_grad():
            answer = model.get_text_features(**tokenizer(text, return_tensors="pt"))
        torch.testing.assert_close(row, answer.pooler_output[0], atol=1e-4, rtol=1e-4)


def test_a_long_text_is_cut_at_its_end_and_keeps_its_end_token(clip: FrozenCLIP) -> None:
    words = ["red", "blue", "star", "ring"] * 20
    tokens = clip.tokenizer(" ".join(words), max_length=clip.max_length, truncation=True).input_ids
    assert len(tokens) == clip.max_length and tokens[-1] == clip.tokenizer.eos_token_id
    long, longer = clip.encode_texts([" ".join(words), " ".join([*words, "moon"])])
    assert torch.equal(long, longer)


def test_pictures_smaller_than_clips_are_refused(clip: FrozenCLIP) -> None:
    with pytest.raises(ValueError, match="48 x 64 are smaller than the 64 pixels"):
        clip.encode_images(torch.zeros(1, 3, 64, 48))


def test_only_a_clip_is_loaded_as_one() -> None:
    with pytest.raises(ValueError, match="is a xlm-roberta model, not a CLIP"):
        load_clip("testbed:xlm-r")
    with pytest.raises(FileNotFoundError, match="holds a CLIP"):
        load_clip("/nowhere/clip")


def test_nothing_of_it_trains(clip: FrozenCLIP) -> None:
    assert not clip.model.training
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
    assert not clip.encode_texts(["a star"]).requires_grad


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("openai/clip-vit-base-patch32", (512, 224), 151_277_313),
        ("openai/clip-vit-large-patch14", (768, 224), 427_616_513),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", (1024, 224), 986_109_441),
        ("testbed:clip", (128, 64), 2_583_009),
    ],
)
def test_a_known_clip_has_its_published_size_without_network(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, int], count: int
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert clip_shape(name) == shape
    assert clip_on_meta(name) == count


def test_xlm_r_base_has_its_published_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert encoder_shape("FacebookAI/xlm-roberta-base") == (768, 77)
    assert encoder_on_meta("FacebookAI/xlm-roberta-base") == 277_453_056
