"""PEA's training step in the forms that `pea_step.py` compares, each made ready to be called."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from arms.training_loop import loop_step
from crosslingual.data.loader import ShardLoader
from crosslingual.data.shards import write_shards
from crosslingual.features.compute import compute_features
from crosslingual.features.loader import finish_features
from crosslingual.frozen.base import encode_english, load_noise_scheduler, load_unet
from crosslingual.training.processes import start_processes
from crosslingual_worlds.drawn.source import world
from pea.config import TrainSettings
from pea.data import frozen_parts, open_data
from pea.info import adapter_config
from pea.method import BlockOutputs, build_adapter, pea_loss
from pea.train import build_training, load_distillation

Step = Callable[[], object]
Arm = tuple[Step, list[nn.Module]]  # a step, and the modules whose weights it holds


def run_settings(folder: Path, batch_size: int) -> TrainSettings:
    """Settings of a run on the features in a folder."""
    return TrainSettings(
        languages=["de"],
        train_batch_size=batch_size,
        train_data=str(folder / "features"),
        output_dir=str(folder / "run"),
    )


def prepare(settings: TrainSettings) -> None:
    """Writes shards and features of the picture world."""
    features = Path(settings.train_data)
    shards = features.with_name("shards")
    write_shards(world(languages=["en", "de"], num_samples=4 * settings.train_batch_size), shards)
    parts = frozen_parts(settings, torch.device("cpu"))
    compute_features(parts, str(shards), features, resolution=settings.resolution)
    finish_features(features)


def floor_arm(settings: TrainSettings) -> Arm:
    """Teacher forward, student forward, gradient to the student's states."""
    ranks = start_processes()
    data = open_data(settings, ranks)
    distillation = load_distillation(settings, data.null, ranks)
    batch = next(data.batches(0))
    noisy = distillation.noising.draw(batch, torch.Generator().manual_seed(0), stratified=False)
    english = batch["english_states"].float()
    student = english.clone().requires_grad_()
    unet = distillation.unet

    def step() -> None:
        with torch.no_grad():
            unet(noisy.latents, noisy.timesteps, english)
        predicted = unet(noisy.latents, noisy.timesteps, student).sample
        torch.autograd.grad(predicted, student, torch.ones_like(predicted))

    return step, [unet]


def plain_arm(settings: TrainSettings) -> Arm:
    """PEA's loss in a plain loop."""
    ranks = start_processes()
    data = open_data(settings, ranks)
    distillation = load_distillation(settings, data.null, ranks)
    adapter = build_adapter(adapter_config(settings))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
    batch = next(data.batches(0))
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        loss, _ = distillation.loss(adapter, batch, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step, [distillation.unet, adapter]


def train_arm(settings: TrainSettings) -> Arm:
    """The loop of `pea train`, a step at a time; its lines stand in `pea.train.train`."""
    ranks = start_processes()
    data = open_data(settings, ranks)
    distillation = load_distillation(settings, data.null, ranks)
    engine, _ = build_training(settings, adapter_config(settings))
    step = loop_step(settings, engine, data.batches(0), distillation.loss)
    return step, [distillation.unet, engine.module]


def reference_arm(settings: TrainSettings) -> Arm:
    """The published form: everything online, two UNets, no gradient switched off."""
    parts = frozen_parts(settings, torch.device("cpu"))
    shards = ShardLoader(
        str(Path(settings.train_data).with_name("shards")),
        batch_size=settings.train_batch_size,
        seed=0,
        resolution=64,
    )
    batches = shards.batches()
    base = settings.pretrained_model_name_or_path
    teacher, student = load_unet(base), load_unet(base).requires_grad_(True)
    adapter = build_adapter(adapter_config(settings))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
    scheduler, scaling = load_noise_scheduler(base), parts.vae.config.scaling_factor
    english, multilingual = parts.english, parts.multilingual

    def step() -> None:
        batch = next(batches)
        num_rows = len(batch["captions"])
        dropped = (torch.rand(num_rows) < settings.caption_dropout).view(-1, 1, 1)
        with torch.no_grad():
            clean = parts.vae.encode(batch["images"]).latent_dist.sample() * scaling
            german = multilingual.encode([c["de"][0] for c in batch["captions"]])[0]
            empty_german = multilingual.encode([""] * num_rows)[0]
            original = encode_english(english, [c["en"][0] for c in batch["captions"]])[0]
            empty_original = encode_english(english, [""] * num_rows)[0]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (num_rows,))
        noisy = scheduler.add_noise(clean, noise, timesteps)
        text = torch.where(dropped, adapter(empty_german)[0], adapter(german)[0])
        with BlockOutputs(student) as student_blocks:
            predicted = student(noisy, timesteps, text).sample
        with torch.no_grad(), BlockOutputs(teacher) as teacher_blocks:
            states = torch.where(dropped, empty_original, original)
            wanted = teacher(noisy, timesteps, states).sample
        native = torch.zeros(num_rows, dtype=torch.bool)
        blocks = student_blocks.outputs, teacher_blocks.outputs
        loss, _ = pea_loss(predicted, wanted, noise, *blocks, native)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    frozen = [parts.vae, english.text_encoder, multilingual.model]
    return step, [teacher, student, adapter, *frozen]


ARMS: dict[str, Callable[[TrainSettings], Arm]] = {
    "floor": floor_arm,
    "plain": plain_arm,
    "train": train_arm,
    "reference": reference_arm,
}
