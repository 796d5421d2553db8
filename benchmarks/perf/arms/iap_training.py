"""IAP's training step in the forms that `iap_step.py` compares, each made ready to be called."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from arms.training_loop import loop_step
from crosslingual.data.shards import write_shards
from crosslingual.features.compute import compute_features
from crosslingual.features.loader import finish_features
from crosslingual.training.processes import start_processes
from crosslingual_worlds.drawn.source import world
from iap.config import TrainSettings
from iap.data import open_data, triplet_parts
from iap.info import encoder_config
from iap.train import build_training, load_alignment

Step = Callable[[], object]

ARMS: dict[str, dict[str, Any]] = {
    "full": {"branch": "full"},
    "local": {},
    "kept": {"english_draws": 1},
    "text": {"objective": "text"},
}
"""Name of an arm to what it changes."""


def run_settings(folder: Path, batch_size: int) -> TrainSettings:
    """Settings of a run on the features in a folder."""
    return TrainSettings(
        target_language=["zh"],
        train_batch_size=batch_size,
        train_data=str(folder / "features"),
        output_dir=str(folder / "run"),
    )


def prepare(settings: TrainSettings) -> None:
    """Writes shards and features of the picture world, with the queries of an English pass."""
    features = Path(settings.train_data)
    shards = features.with_name("shards")
    write_shards(world(languages=["en", "zh"], num_samples=4 * settings.train_batch_size), shards)
    keeping = dataclasses.replace(settings, **ARMS["kept"])
    parts = triplet_parts(keeping, encoder_config(keeping), torch.device("cpu"))
    compute_features(parts, str(shards), features, resolution=settings.resolution)
    finish_features(features)


def make_step(settings: TrainSettings, arm: str) -> Step:
    """The loop of `iap train`, a step at a time; its lines stand in `iap.train.train`."""
    settings = dataclasses.replace(settings, **ARMS[arm], output_dir=f"{settings.output_dir}/{arm}")
    ranks = start_processes()
    config = encoder_config(settings)
    data = open_data(settings, config, ranks)
    alignment = load_alignment(settings, data.null, ranks)
    engine = build_training(settings, config)
    return loop_step(settings, engine, data.batches(0), alignment.loss)


def english_pass(settings: TrainSettings) -> Step:
    """What keeping the queries of a batch's English passes costs, once a picture."""
    ranks = start_processes()
    keeping = dataclasses.replace(settings, **ARMS["kept"])
    config = encoder_config(keeping)
    parts = triplet_parts(keeping, config, ranks.device)
    data = open_data(keeping, config, ranks)
    batch = next(data.batches(0))
    keys = data.keys(batch)
    return lambda: parts.queries(batch, keys)
