"""`pea train`: settings, frozen parts, adapter, data, engine, loop.

pea train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m pea.train --config configs/testbed.yaml
deepspeed --module pea.train --config configs/testbed.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.training_data import row_generators
from crosslingual.frozen.base import load_noise_scheduler, load_unet
from crosslingual.frozen.shapes import vae_scaling_factor
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress
from pea.config import TrainSettings
from pea.data import open_data
from pea.distillation import Distillation
from pea.export import write_adapter
from pea.generate import draw
from pea.info import adapter_config
from pea.method import build_adapter

ZERO_0 = {"zero_optimization": {"stage": 0}}


def load_distillation(settings: TrainSettings, null: dict[str, Any], ranks: Ranks) -> Distillation:
    """The frozen UNet with its noise schedule."""
    unet = load_unet(settings.pretrained_model_name_or_path, settings.revision)
    unet = unet.to(ranks.device, memory_format=torch.channels_last)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()  # checkpointing works in this mode only; no dropout, no running statistics
    if settings.compile:
        unet.compile()
    base, revision = settings.pretrained_model_name_or_path, settings.revision
    scheduler = load_noise_scheduler(base, revision)
    return Distillation(unet, scheduler, null, vae_scaling_factor(base, revision), settings)


@torch.no_grad()
def validate(
    settings: TrainSettings,
    distillation: Distillation,
    adapter: nn.Module,
    progress: Progress,
    step: int,
) -> None:
    """Logs the loss of a fixed batch under fixed noise and stratified timesteps, and draws the
    validation prompts.
    """
    loader = FeatureLoader(settings.validation_data, batch_size=1, seed=0)
    batch = loader.rows(torch.arange(min(settings.validation_rows, loader.index.num_rows)))
    loss, parts = distillation.loss(
        adapter, batch, torch.Generator().manual_seed(settings.seed), stratified=True
    )
    values = {"loss": loss, **parts}
    progress.log({f"validation_{name}": value.item() for name, value in values.items()}, step)
    if settings.validation_prompts:
        config = adapter_config(settings)
        progress.pictures(
            "validation",
            draw(adapter, config, distillation.unet, settings.validation_prompts),
            step,
        )


def build_training(settings: TrainSettings, config: dict[str, Any]) -> tuple[Any, EMAModel | None]:
    """The DeepSpeed engine around a new adapter, and its moving average where the settings want
    one.
    """
    torch.manual_seed(settings.seed)
    adapter = build_adapter(config)
    engine = build_engine(
        adapter,
        settings.deepspeed_config or ZERO_0,
        learning_rate=settings.learning_rate,
        weight_decay=settings.adam_weight_decay,
        betas=(settings.adam_beta1, settings.adam_beta2),
        lr_scheduler=settings.lr_scheduler,
        lr_warmup_steps=settings.lr_warmup_steps,
        lr_end=settings.lr_end,
        max_train_steps=settings.max_train_steps,
        max_grad_norm=settings.max_grad_norm,
        train_batch_size=settings.train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        mixed_precision=settings.mixed_precision,
    )
    return engine, EMAModel(
        adapter.parameters(), decay=settings.ema_decay
    ) if settings.use_ema else None


def train(settings: TrainSettings) -> Path:
    """Trains an adapter and exports it to `output_dir/adapter`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    config = adapter_config(settings)
    data = open_data(settings, ranks)
    distillation = load_distillation(settings, data.null, ranks)
    engine, ema = build_training(settings, config)
    first, last, accumulation = 0, settings.max_train_steps, settings.gradient_accumulation_steps
    if resume is not None:
        state = load_checkpoint(engine, resume)
        first = state["step"]
        if ema is not None:
            ema.load_state_dict(state["ema"])
    if ranks.rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_settings(settings, output_dir / "settings.yaml")
    batches = data.batches(first * accumulation)
    progress = Progress(
        last, output_dir, start_step=first, report_to=settings.report_to, rank=ranks.rank
    )
    with StopRequest() as stop:
        for step in range(first, last):
            for micro_step in range(step * accumulation, (step + 1) * accumulation):
                batch = next(batches)
                generators = row_generators(
                    settings.seed, micro_step, ranks, settings.train_batch_size
                )
                loss, parts = distillation.loss(engine, batch, generators)
                if not torch.isfinite(loss):
                    check_finite(loss, parts, step=step + 1, keys=data.keys(batch))
                engine.backward(loss)
                engine.step()
            if ema is not None:
                ema.step(engine.module.parameters())
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            progress.step(step + 1, loss.detach(), parts, engine.get_lr()[0], num_samples)
            if (
                settings.validation_steps
                and (step + 1) % settings.validation_steps == 0
                and ranks.rank == 0
            ):
                validate(settings, distillation, engine.module, progress, step + 1)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                state = {} if ema is None else {"ema": ema.state_dict()}
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state=state, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_adapter(engine, ema, config, output_dir / "adapter", ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea train` and `python -m pea.train`."""
    return run_verb("pea train", TrainSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
