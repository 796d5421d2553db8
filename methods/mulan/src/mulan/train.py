"""`mulan train`: settings, frozen parts, adapter, data, engine, loop.

mulan train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m mulan.train --config configs/testbed.yaml
deepspeed --module mulan.train --config configs/testbed.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.training_data import row_generators
from crosslingual.frozen.base import load_noise_scheduler
from crosslingual.frozen.schedule import Noising
from crosslingual.frozen.shapes import vae_scaling_factor
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import check_finite
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress
from mulan.alignment import Alignment
from mulan.config import TrainSettings
from mulan.data import open_data
from mulan.denoiser import load_denoiser
from mulan.export import write_adapter
from mulan.generate import draw
from mulan.info import adapter_config
from mulan.start import build_training


def load_alignment(
    settings: TrainSettings, config: dict[str, Any], null: dict[str, Tensor], ranks: Ranks
) -> Alignment:
    """The frozen denoiser with its noise schedule, neither where captions alone train."""
    denoiser = noising = None
    if settings.alignment != "language":
        base, revision = settings.pretrained_model_name_or_path, settings.revision
        denoiser = load_denoiser(settings, ranks)
        noising = Noising(
            load_noise_scheduler(base, revision),
            vae_scaling_factor(base, revision),
            device=ranks.device,
            caption_dropout=settings.caption_dropout,
            noise_offset=settings.noise_offset,
        )
    return Alignment(denoiser, noising, null, settings, config, ranks.device)


@torch.no_grad()
def validate(
    settings: TrainSettings,
    config: dict[str, Any],
    alignment: Alignment,
    adapter: nn.Module,
    progress: Progress,
    step: int,
) -> None:
    """Logs the loss of a fixed batch under fixed noise and stratified timesteps, and draws the
    validation prompts.
    """
    loader = FeatureLoader(settings.validation_data, batch_size=1, seed=0)
    batch = loader.rows(torch.arange(min(settings.validation_rows, loader.index.num_rows)))
    generator = torch.Generator().manual_seed(settings.seed)
    loss, parts = alignment.loss(adapter, batch, generator, stratified=True)
    values = {"loss": loss, **parts}
    progress.log({f"validation_{name}": value.item() for name, value in values.items()}, step)
    if settings.validation_prompts:
        model = alignment.denoiser.model if alignment.denoiser else None
        strip = draw(adapter, config, model, settings.validation_prompts)
        progress.pictures("validation", strip, step)


def train(settings: TrainSettings) -> Path:
    """Trains an adapter and exports it to `output_dir/adapter`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    config = adapter_config(settings)
    data = open_data(settings, ranks)
    alignment = load_alignment(settings, config, data.null, ranks)
    unet = alignment.denoiser.model if alignment.denoiser else None
    training = build_training(settings, config, unet)
    engine, ema = training.engine, training.ema
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
                loss, parts = alignment.loss(engine, batch, generators)
                if not torch.isfinite(loss):
                    check_finite(loss, parts, step=step + 1, keys=data.keys(batch))
                engine.backward(loss)
                engine.step()
            if ema is not None:
                ema.step(training.trainable)
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            progress.step(step + 1, loss.detach(), parts, engine.get_lr()[0], num_samples)
            if (
                settings.validation_steps
                and (step + 1) % settings.validation_steps == 0
                and ranks.rank == 0
            ):
                validate(settings, config, alignment, engine.module, progress, step + 1)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                state = {} if ema is None else {"ema": ema.state_dict()}
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state=state, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_adapter(training, config, output_dir / "adapter", ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan train` and `python -m mulan.train`."""
    return run_verb("mulan train", TrainSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
