"""The training loop of `altdiffusion train`, the same for every stage of the UNet."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altdiffusion.artifact import save_trained
from altdiffusion.data import CaptionData, open_data
from altdiffusion.method import CAPTION_DROPOUT
from altdiffusion.pipeline import draw
from altdiffusion.settings import TrainSettings
from altdiffusion.step import denoising_step
from altdiffusion.unet import load_stage_unet, open_base
from crosslingual.features.training_data import validation_batch
from crosslingual.frozen.base import Base, Denoiser
from crosslingual.frozen.schedule import Noising
from crosslingual.training.run import Run


def train(settings: TrainSettings) -> Path:
    """Trains a stage of the UNet and exports a pipeline to `output_dir/pipeline`."""
    run = Run(settings)
    if run.zero_stage == 3 and settings.validation_prompts:
        raise ValueError(
            "at ZeRO stage 3 no process holds whole weights to draw with: use ds/zero2.json, or "
            "leave out --validation_prompts"
        )
    base = open_base(settings)
    data, held_out = open_data(settings, run.ranks), validation_batch(settings)
    noising = open_noising(base, settings, run.ranks.device)
    engine = run.prepare(load_trainable_unet(settings))
    denoiser = base.wrap_denoiser(
        engine, resolution=settings.resolution, mixed_precision=settings.mixed_precision
    )
    if run.zero_stage < 3:
        lay_out_channels_last(engine.module)
    batches, gamma = data.batches(run.first_micro_step), settings.min_snr_gamma
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            loss, parts = denoising_step(denoiser, noising, data, batch, draws, min_snr_gamma=gamma)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step):  # on every rank: ZeRO stage 3 gathers weights as they are used
            run.log(validate(denoiser, noising, data, held_out, settings), step)
            if settings.validation_prompts and run.ranks.rank == 0:
                run.pictures("validation", draw(engine.module, settings), step)
    return run.finish(lambda state: save_trained(state, settings, run.output_dir / "pipeline"))


def open_noising(base: Base, settings: TrainSettings, device: torch.device) -> Noising:
    """Opens the base's noise schedule with the stage's caption dropout."""
    dropout = settings.caption_dropout
    return base.schedule(
        device=device,
        caption_dropout=CAPTION_DROPOUT[settings.stage] if dropout is None else dropout,
        noise_offset=settings.noise_offset,
    )


def load_trainable_unet(settings: TrainSettings) -> nn.Module:
    """Loads the stage's UNet, ready to train."""
    torch.manual_seed(settings.seed)
    unet = load_stage_unet(settings)
    unet.train()  # gradient checkpointing works only in this mode; these UNets have no dropout
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if settings.compile:
        unet.compile()
    return unet


def lay_out_channels_last(unet: nn.Module) -> None:
    """Stores frozen convolutions channels-last, where they run fastest; call it after building the
    engine, which broadcasts and flattens only contiguous tensors.
    """
    for parameter in unet.parameters():
        if parameter.ndim == 4 and not parameter.requires_grad:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def validate(
    denoiser: Denoiser,
    noising: Noising,
    data: CaptionData,
    batch: dict[str, Any],
    settings: TrainSettings,
) -> dict[str, float]:
    """Computes loss and parts on a fixed batch, with fixed noise and stratified timesteps."""
    generator = torch.Generator().manual_seed(settings.seed)
    loss, parts = denoising_step(
        denoiser,
        noising,
        data,
        batch,
        generator,
        min_snr_gamma=settings.min_snr_gamma,
        stratified=True,
    )
    return {f"validation_{name}": part.item() for name, part in {"loss": loss, **parts}.items()}
