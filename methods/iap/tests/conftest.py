"""What several of IAP's tests use: Stable Diffusion and XLM-R in miniature with random weights,
shards and features of random pictures, and `iap` in forked processes.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual_worlds.testing.miniatures import (
    RESOLUTION,
    write_encoder,
    write_sd,
)
from crosslingual_worlds.testing.processes import forked_runs, words_of

Iap = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Stable Diffusion base's folder."""
    return write_sd(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A multilingual encoder's folder: an XLM-R of width 12 whose pieces are letters."""
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 random pictures captioned in English, German and French, all parallel."""
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        pixels, picture = random.integers(0, 256, (RESOLUTION, RESOLUTION, 3)), io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(picture, "PNG")
        texts = {"en": "house {}", "de": "ein Haus {}", "fr": "maison {}"}
        captions = {language: [text.format(number)] for language, text in texts.items()}
        return Record(f"{number:05d}", picture.getvalue(), captions, parallel=True)

    folder = tmp_path_factory.mktemp("shards")
    write_shards(map(record, range(24)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def iap() -> Iterator[Iap]:
    """Runs the command in forked processes: `iap("train", output_dir=..., max_train_steps=6)`.

    The answer holds `codes` and `stderr`, a value a rank; see
    `crosslingual_worlds.testing.processes.serve_verbs` for `world_size`, `terminate`, `die`.
    """
    with forked_runs(Path(__file__).with_name("fork_server.py")) as ask:
        yield lambda verb, faults=None, **settings: ask(
            {"argv": words_of(verb, settings), **(faults or {})}
        )


@pytest.fixture(scope="session")
def parts(sd: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": encoder,
        "target_language": ["de", "fr"],
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def features(
    iap: Iap, parts: dict[str, Any], shards: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The features of `shards`, by `iap features`."""
    folder = tmp_path_factory.mktemp("features")
    answer = iap("features", shards=shards, features_dir=folder, encode_batch_size=8, **parts)
    assert answer["codes"] == [0], answer["stderr"]
    return str(folder)


@pytest.fixture(scope="session")
def recipe(parts: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of a short training run on `features`."""
    return {
        **parts,
        "train_data": features,
        "train_batch_size": 4,
        "max_train_steps": 6,
        "learning_rate": 1e-2,
        "lr_warmup_steps": 1,
        "checkpointing_steps": 2,
        "caption_dropout": 0.2,
    }
