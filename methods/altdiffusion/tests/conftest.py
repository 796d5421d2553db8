"""What several tests use: Stable Diffusion, CLIP, XLM-R and a trained student in miniature with
random weights, shards and features of random pictures, and `altdiffusion` in forked processes.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
)

from altdiffusion.text_encoder import build_student, save_text_encoder
from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual_worlds.testing.miniatures import (
    RESOLUTION,
    TEXT_LAYOUT,
    WIDTH,
    clip_tokenizer,
    fill,
    write_encoder,
    write_sd,
)
from crosslingual_worlds.testing.processes import forked_runs, words_of

Alt = Callable[..., dict[str, Any]]

LANGUAGES = ["en", "de", "fr"]
VISION = {
    "hidden_size": 20,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": RESOLUTION,
    "patch_size": 16,
}


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Stable Diffusion base's folder."""
    return write_sd(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP's folder: pooled states of width 16, a joint space of width 6."""
    folder = tmp_path_factory.mktemp("teacher")
    config = CLIPConfig(text_config=TEXT_LAYOUT, vision_config=VISION, projection_dim=6)
    fill(CLIPModel(config)).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    size = {"height": RESOLUTION, "width": RESOLUTION}
    processor = CLIPImageProcessorPil(size={"shortest_edge": RESOLUTION}, crop_size=size)
    processor.save_pretrained(folder)
    return str(folder)


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


def write_records(folder: Path, count: int, native: int = 0) -> str:
    """Random pictures captioned in English, German and French, the last ones in French alone."""
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        pixels, picture = random.integers(0, 256, (RESOLUTION, RESOLUTION, 3)), io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(picture, "PNG")
        if number >= count - native:
            return Record(
                f"{number:05d}", picture.getvalue(), {"fr": [f"pain {number}"]}, False, "fr"
            )
        texts = {"en": "house {}", "de": "ein Haus {}", "fr": "maison {}"}
        captions = {language: [text.format(number)] for language, text in texts.items()}
        return Record(f"{number:05d}", picture.getvalue(), captions, parallel=True)

    write_shards(map(record, range(count)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 pictures, of which 4 have a French caption alone."""
    return write_records(tmp_path_factory.mktemp("shards"), 24, native=4)


@pytest.fixture(scope="session")
def alt() -> Iterator[Alt]:
    """Runs the command in forked processes: `alt("train", output_dir=..., max_train_steps=6)`.

    The answer holds `codes` and `stderr`, a value a rank; see
    `crosslingual_worlds.testing.processes.serve_verbs` for `world_size`, `terminate`, `die`.
    """
    with forked_runs(Path(__file__).with_name("fork_server.py")) as ask:
        yield lambda verb, faults=None, **settings: ask(
            {"argv": words_of(verb, settings), **(faults or {})}
        )


@pytest.fixture(scope="session")
def parts(sd: str, student: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": student,
        "languages": LANGUAGES,
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def features(
    alt: Alt, parts: dict[str, Any], shards: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The features of `shards`, by `altdiffusion features`."""
    folder = tmp_path_factory.mktemp("features")
    answer = alt("features", shards=shards, features_dir=folder, encode_batch_size=8, **parts)
    assert answer["codes"] == [0], answer["stderr"]
    return str(folder)


@pytest.fixture(scope="session")
def recipe(parts: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of a short concept alignment on `features`."""
    return {
        **parts,
        "train_data": features,
        "train_batch_size": 4,
        "max_train_steps": 6,
        "learning_rate": 1e-2,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 1,
        "checkpointing_steps": 2,
        "caption_dropout": 0.2,
    }


@pytest.fixture(scope="session")
def text_recipe(teacher: str, encoder: str, shards: str) -> dict[str, Any]:
    """The settings of a short teacher learning on the captions of `shards`."""
    return {
        "teacher": teacher,
        "text_encoder": encoder,
        "train_data": [shards],
        "train_batch_size": 8,
        "max_train_steps": 6,
        "learning_rate": 1e-2,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 1,
        "checkpointing_steps": 2,
    }
