"""AltDiffusion's training step in the forms that `altdiffusion_step.py` compares, each made ready
to be called.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from altdiffusion.config import TrainSettings
from altdiffusion.data import frozen_parts
from altdiffusion.text_encoder import build_student, save_text_encoder
from altdiffusion.train import build_training, open_denoising
from altdiffusion.unet import load_stage_unet, set_trainable, unet_config
from arms.training_loop import loop_step
from crosslingual.data.shards import write_shards
from crosslingual.features.compute import compute_features
from crosslingual.features.loader import finish_features
from crosslingual.frozen.schedule import choose_language
from crosslingual.training.processes import start_processes
from crosslingual_worlds.drawn.source import world

Step = Callable[[], object]
LANGUAGES = ["en", "de", "fr", "ja", "zh"]


def run_settings(folder: Path, batch_size: int, base: str, resolution: int) -> TrainSettings:
    """Settings of a run on the features in a folder."""
    return TrainSettings(
        languages=LANGUAGES,
        pretrained_model_name_or_path=base,
        resolution=resolution,
        train_batch_size=batch_size,
        text_encoder=str(folder / "student"),
        train_data=str(folder / "features"),
        output_dir=str(folder / "run"),
    )


def prepare(settings: TrainSettings, encoder: str) -> None:
    """Writes an untrained student, and shards and features of the picture world."""
    width = unet_config(settings)["cross_attention_dim"]
    save_text_encoder(build_student(encoder, width), Path(settings.text_encoder))
    features = Path(settings.train_data)
    shards = features.with_name("shards")
    write_shards(world(languages=LANGUAGES, num_samples=4 * settings.train_batch_size), shards)
    parts = frozen_parts(settings, torch.device("cpu"))
    compute_features(parts, str(shards), features, resolution=settings.resolution)
    finish_features(features)


def floor_arm(settings: TrainSettings) -> Step:
    """The UNet forward and backward, gradients for keys and values alone."""
    ranks = start_processes()
    denoising = open_denoising(settings, ranks)
    unet = set_trainable(load_stage_unet(settings), settings)
    unet = unet.to(memory_format=torch.channels_last)
    batch = next(denoising.data.batches(0))
    generator = torch.Generator().manual_seed(0)
    noisy = denoising.noising.draw(batch, generator)
    states = denoising.data.states(batch, choose_language(batch["has_language"], generator))
    trainable = [parameter for parameter in unet.parameters() if parameter.requires_grad]

    def step() -> None:
        predicted = unet(noisy.latents, noisy.timesteps, states).sample
        torch.autograd.grad(predicted, trainable, torch.ones_like(predicted))

    return step


def train_arm(settings: TrainSettings) -> Step:
    """The loop of `altdiffusion train`, a step at a time; its lines stand in `train.train`."""
    ranks = start_processes()
    denoising = open_denoising(settings, ranks)
    engine, _ = build_training(settings)
    return loop_step(settings, engine, denoising.data.batches(0), denoising.loss)


def online_arm(settings: TrainSettings) -> Step:
    """The same from shards."""
    shards = str(Path(settings.train_data).with_name("shards"))
    run = str(Path(settings.output_dir).with_name("online"))
    return train_arm(dataclasses.replace(settings, train_data=shards, output_dir=run))


def whole_arm(settings: TrainSettings) -> Step:
    """The same as train, with the whole UNet training."""
    run = str(Path(settings.output_dir).with_name("whole"))
    stage = "quality_improvement"
    return train_arm(dataclasses.replace(settings, stage=stage, output_dir=run))


ARMS: dict[str, Callable[[TrainSettings], Step]] = {
    "floor": floor_arm,
    "train": train_arm,
    "online": online_arm,
    "whole": whole_arm,
}
