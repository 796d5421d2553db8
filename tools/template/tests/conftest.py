"""What several tests use: parallel captions without pictures, and their features."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from template.config import FeaturesSettings, TrainSettings
from template.features import features as compute_features

LANGUAGES = ["de", "fr"]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """32 captions in English, German and French, all parallel."""

    def record(number: int) -> Record:
        texts = {"en": "house {}", "de": "ein Haus {}", "fr": "maison {}"}
        captions = {language: [text.format(number)] for language, text in texts.items()}
        return Record(f"{number:05d}", None, captions, parallel=True)

    folder = tmp_path_factory.mktemp("shards")
    write_shards(map(record, range(32)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def features(shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The features of `shards`, by the embedded models."""
    folder = tmp_path_factory.mktemp("features")
    settings = FeaturesSettings(languages=LANGUAGES, shards=shards, features_dir=str(folder))
    return str(compute_features(settings))


@pytest.fixture
def recipe(features: str, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Settings of a short run on `features`: `recipe(max_train_steps=6)`."""

    def settings(**changes: Any) -> TrainSettings:
        values = {
            "train_data": features,
            "output_dir": str(tmp_path / "run"),
            "languages": LANGUAGES,
            "hidden_width": 32,
            "train_batch_size": 8,
            "max_train_steps": 6,
            "learning_rate": 1e-2,
            "lr_warmup_steps": 1,
            "checkpointing_steps": 2,
        }
        return TrainSettings(**values | changes)

    return settings


@pytest.fixture
def losses() -> Callable[[str | Path], list[float]]:
    """The losses that a run's metrics.jsonl holds, by step."""

    def read(output_dir: str | Path) -> list[float]:
        lines = (Path(output_dir) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    return read
