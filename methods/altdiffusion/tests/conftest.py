"""AltDiffusion in miniature, as the conformance kit and its own tests train it."""

from pathlib import Path
from typing import Any

import pytest

from altdiffusion.text.encoder import build_student, save_text_encoder
from crosslingual.data.records import Record
from crosslingual_worlds.testing.fixtures import *  # noqa: F403, the kit's fixtures
from crosslingual_worlds.testing.fixtures import SHORT_RUN, Subject
from crosslingual_worlds.testing.miniatures import (
    RESOLUTION,
    WIDTH,
    fill,
    parallel_record,
    write_clip,
    write_encoder,
    write_pictures,
)

VISION = {
    "hidden_size": 20,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": RESOLUTION,
    "patch_size": 16,
}


@pytest.fixture(scope="session")
def subject() -> Subject:
    """AltDiffusion, whose short run is concept alignment."""
    return Subject(
        name="altdiffusion",
        folder=Path(__file__).parents[1],
        exported="pipeline",
        weights=(
            "unet/diffusion_pytorch_model.safetensors",
            "text_encoder/model.safetensors",
        ),
        recipe={"caption_dropout": 0.2, "lr_scheduler": "constant"},
        whole={"use_ema": True, "min_snr_gamma": 5.0},
    )


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP's folder: pooled states of width 16, a joint space of width 6."""
    return write_clip(tmp_path_factory.mktemp("teacher"), 6, VISION)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A multilingual encoder's folder: an XLM-R of width 12 whose pieces are letters."""
    return write_encoder(tmp_path_factory.mktemp("encoder"), num_layers=2)


@pytest.fixture(scope="session")
def student(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained text encoder's folder, of width 16."""
    folder = tmp_path_factory.mktemp("student")
    built = build_student(encoder, WIDTH)
    fill(built.model)
    save_text_encoder(built, folder)
    return str(folder)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 pictures captioned in English, German and French, the last 4 in French alone."""

    def record(number: int, picture: bytes) -> Record:
        if number < 20:
            return parallel_record(number, picture)
        return Record(f"{number:05d}", picture, {"fr": [f"pain {number}"]}, False, "fr")

    return write_pictures(tmp_path_factory.mktemp("shards"), 24, record)


@pytest.fixture(scope="session")
def places(shards: str, encoder: str) -> dict[str, str]:
    """What names in braces stand for in the kit's mistakes."""
    return {"shards": shards, "encoder": encoder}


@pytest.fixture(scope="session")
def parts(sd: str, student: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": student,
        "languages": ["en", "de", "fr"],
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def text_recipe(teacher: str, encoder: str, shards: str) -> dict[str, Any]:
    """The settings of a short teacher learning on the captions of `shards`."""
    return {
        **SHORT_RUN,
        "teacher": teacher,
        "text_encoder": encoder,
        "train_data": [shards],
        "train_batch_size": 8,
        "lr_scheduler": "constant",
    }
