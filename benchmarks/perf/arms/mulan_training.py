"""MuLan's training step in the forms that `mulan_step.py` compares, each ready to be called."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from arms.training_loop import loop_step
from crosslingual.data.shards import write_shards
from crosslingual.features.compute import compute_features
from crosslingual.features.loader import finish_features
from crosslingual.training.processes import start_processes
from crosslingual_worlds.drawn.source import world
from mulan.config import TrainSettings
from mulan.data import frozen_parts, open_data
from mulan.info import adapter_config
from mulan.start import build_training, make_adapter
from mulan.train import load_alignment

Step = Callable[[], object]


def run_settings(folder: Path, batch_size: int, alignment: str) -> TrainSettings:
    """Settings of a run on the features in a folder, of the testbed's shapes."""
    return TrainSettings(
        alignment=alignment,
        num_queries=32,
        train_batch_size=batch_size,
        train_data=str(folder / "features"),
        output_dir=str(folder / "run"),
    )


def prepare(settings: TrainSettings) -> None:
    """Writes shards and features of the picture world, with English captions."""
    features = Path(settings.train_data)
    shards = features.with_name("shards")
    write_shards(world(languages=["en"], num_samples=4 * settings.train_batch_size), shards)
    parts = frozen_parts(settings, torch.device("cpu"))
    compute_features(parts, str(shards), features, resolution=settings.resolution)
    finish_features(features)


def floor_arm(settings: TrainSettings) -> Step:
    """One forward of the UNet and the gradient to its text states."""
    ranks = start_processes()
    data = open_data(settings, ranks)
    alignment = load_alignment(settings, adapter_config(settings), data.null, ranks)
    batch = next(data.batches(0))
    noisy = alignment.noising.draw(batch, torch.Generator().manual_seed(0))
    states = batch["english_states"].float().requires_grad_()
    unet = alignment.denoiser.model

    def step() -> None:
        predicted = unet(noisy.latents, noisy.timesteps, states).sample
        torch.autograd.grad(predicted, states, torch.ones_like(predicted))

    return step


def plain_arm(settings: TrainSettings) -> Step:
    """MuLan's loss in a plain loop: fixed batch, AdamW, clipping."""
    ranks = start_processes()
    data, config = open_data(settings, ranks), adapter_config(settings)
    alignment = load_alignment(settings, config, data.null, ranks)
    adapter = make_adapter(settings, config)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
    batch = next(data.batches(0))
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        loss, _ = alignment.loss(adapter, batch, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def train_arm(settings: TrainSettings) -> Step:
    """The loop of `mulan train`, a step at a time; its lines stand in `mulan.train.train`."""
    ranks = start_processes()
    data, config = open_data(settings, ranks), adapter_config(settings)
    alignment = load_alignment(settings, config, data.null, ranks)
    engine = build_training(settings, config, alignment.denoiser.model).engine
    return loop_step(settings, engine, data.batches(0), alignment.loss)


ARMS: dict[str, Callable[[TrainSettings], Step]] = {
    "floor": floor_arm,
    "plain": plain_arm,
    "train": train_arm,
}
