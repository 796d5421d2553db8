"""`altdiffusion train`: settings, data, UNet of the stage, engine, loop; the same for every stage.

altdiffusion train --config configs/testbed_concept_alignment.yaml
torchrun --nproc_per_node 2 -m altdiffusion.train --config configs/testbed_concept_alignment.yaml
deepspeed --module altdiffusion.train --config configs/testbed_concept_alignment.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel

from altdiffusion.config import TrainSettings
from altdiffusion.data import open_data, validation_batch
from altdiffusion.denoising import Denoising
from altdiffusion.export import write_pipeline
from altdiffusion.generate import draw
from altdiffusion.unet import load_stage_unet, set_trainable
from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.features.training_data import row_generators
from crosslingual.frozen.base import load_noise_scheduler
from crosslingual.frozen.shapes import vae_scaling_factor
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress

ZERO_0 = {"zero_optimization": {"stage": 0}}


def open_denoising(settings: TrainSettings, ranks: Ranks) -> Denoising:
    """The data and the base's noise schedule."""
    base, revision = settings.pretrained_model_name_or_path, settings.revision
    data = open_data(settings, ranks)
    scheduler, scaling = load_noise_scheduler(base, revision), vae_scaling_factor(base, revision)
    return Denoising(data, scheduler, scaling, ranks.device, settings)


def build_training(settings: TrainSettings) -> tuple[Any, EMAModel | None]:
    """The DeepSpeed engine around the stage's UNet, and the moving average of what trains, where
    the settings want one.

    Raises:
        ValueError: for what ZeRO stage 3 cannot do.
    """
    torch.manual_seed(settings.seed)
    unet = set_trainable(load_stage_unet(settings), settings)
    unet.train()  # gradient checkpointing works in this mode only; no dropout in these UNets
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if settings.compile:
        unet.compile()
    engine = build_engine(
        unet,
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
    if engine.zero_optimization_stage() == 3 and (settings.use_ema or settings.validation_prompts):
        raise ValueError(
            "at ZeRO stage 3 no process holds whole weights to average or to draw with: use "
            "ds/zero2.json, or leave out use_ema and validation_prompts"
        )
    if engine.zero_optimization_stage() < 3:
        # after the engine, which broadcasts and flattens what lies in rows alone
        for parameter in engine.module.parameters():
            if parameter.ndim == 4 and not parameter.requires_grad:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    trainable = [p for p in engine.module.parameters() if p.requires_grad]
    return engine, EMAModel(trainable, decay=settings.ema_decay) if settings.use_ema else None


@torch.no_grad()
def validate(
    settings: TrainSettings,
    denoising: Denoising,
    engine: Any,
    progress: Progress,
    step: int,
    ranks: Ranks,
) -> None:
    """Logs the loss of a fixed batch under fixed noise and stratified timesteps, and draws the
    validation prompts. Every process must call it: ZeRO stage 3 gathers weights as they are used.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    batch = validation_batch(settings)
    loss, parts = denoising.loss(engine, batch, generator, stratified=True)
    values = {"loss": loss, **parts}
    progress.log({f"validation_{name}": value.item() for name, value in values.items()}, step)
    if settings.validation_prompts and ranks.rank == 0:
        progress.pictures("validation", draw(engine.module, settings), step)


def train(settings: TrainSettings) -> Path:
    """Trains a stage of the UNet and exports a pipeline to `output_dir/pipeline`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    denoising = open_denoising(settings, ranks)
    engine, ema = build_training(settings)
    first, last, accumulation = 0, settings.max_train_steps, settings.gradient_accumulation_steps
    if resume is not None:
        state = load_checkpoint(engine, resume)
        first = state["step"]
        if ema is not None:
            ema.load_state_dict(state["ema"])
    if ranks.rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_settings(settings, output_dir / "settings.yaml")
    batches = denoising.data.batches(first * accumulation)
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
                loss, parts = denoising.loss(engine, batch, generators)
                if not torch.isfinite(loss):
                    check_finite(loss, parts, step=step + 1, keys=denoising.data.keys(batch))
                engine.backward(loss)
                engine.step()
            if ema is not None:
                ema.step([p for p in engine.module.parameters() if p.requires_grad])
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            progress.step(step + 1, loss.detach(), parts, engine.get_lr()[0], num_samples)
            if settings.validation_steps and (step + 1) % settings.validation_steps == 0:
                validate(settings, denoising, engine, progress, step + 1, ranks)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                state = {} if ema is None else {"ema": ema.state_dict()}
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state=state, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_pipeline(engine, ema, settings, output_dir / "pipeline", ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion train` and `python -m altdiffusion.train`."""
    return run_verb("altdiffusion train", TrainSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
