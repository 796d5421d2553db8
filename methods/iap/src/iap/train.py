"""`iap train`: settings, frozen UNet, encoder, data, engine, loop.

iap train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m iap.train --config configs/testbed.yaml
deepspeed --module iap.train --config configs/testbed.yaml
"""

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.features.training_data import row_generators
from crosslingual.frozen.base import load_noise_scheduler, load_unet
from crosslingual.frozen.schedule import Noising
from crosslingual.frozen.shapes import vae_scaling_factor
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress
from iap.alignment import Alignment
from iap.config import TrainSettings
from iap.data import open_data, open_validation
from iap.encoder import add_lora, start_encoder
from iap.export import write_encoder
from iap.info import encoder_config

ZERO_0 = {"zero_optimization": {"stage": 0}}


def load_alignment(settings: TrainSettings, null: dict[str, Tensor], ranks: Ranks) -> Alignment:
    """The frozen UNet, where the objective needs one, with its noise schedule."""
    base, revision = settings.pretrained_model_name_or_path, settings.revision
    unet = None
    if settings.objective == "attention":
        unet = load_unet(base, revision).to(ranks.device, memory_format=torch.channels_last)
    noising = Noising(
        load_noise_scheduler(base, revision),
        vae_scaling_factor(base, revision),
        device=ranks.device,
        caption_dropout=settings.caption_dropout,
        noise_offset=settings.noise_offset,
    )
    return Alignment(unet, noising, null, settings)


def build_training(settings: TrainSettings, config: dict[str, Any]) -> Any:
    """The DeepSpeed engine around the target encoder."""
    torch.manual_seed(settings.seed)
    encoder = start_encoder(
        config["altclip"], settings.text_encoder, settings.text_encoder_revision
    )
    if settings.train_encoder == "lora":
        add_lora(encoder, settings.lora_rank)
    return build_engine(
        encoder,
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
        # one kernel a tensor: an encoder that trains whole has enough of them to be felt
        make_optimizer=functools.partial(torch.optim.AdamW, fused=True),
    )


@torch.no_grad()
def validate(
    alignment: Alignment, encoder: nn.Module, batch: dict[str, Tensor], seed: int
) -> dict[str, float]:
    """The loss of a fixed batch under fixed noise and stratified timesteps, and its parts."""
    generator = torch.Generator().manual_seed(seed)
    loss, parts = alignment.loss(encoder, batch, generator, stratified=True)
    values = {"loss": loss, **parts}
    return {f"validation_{name}": value.item() for name, value in values.items()}


def train(settings: TrainSettings) -> Path:
    """Trains the target encoder and exports it to `output_dir/encoder`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    config = encoder_config(settings)
    data = open_data(settings, config, ranks)
    validation = open_validation(settings, config, ranks)
    alignment = load_alignment(settings, data.null, ranks)
    engine = build_training(settings, config)
    first = 0 if resume is None else load_checkpoint(engine, resume)["step"]
    last, accumulation = settings.max_train_steps, settings.gradient_accumulation_steps
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
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            num_samples *= settings.captions_per_pass
            progress.step(step + 1, loss.detach(), parts, engine.get_lr()[0], num_samples)
            is_validated = settings.validation_steps and (step + 1) % settings.validation_steps == 0
            if is_validated and ranks.rank == 0:
                values = validate(alignment, engine.module, validation, settings.seed)
                progress.log(values, step + 1)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state={}, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_encoder(engine, config, output_dir / "encoder", ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap train` and `python -m iap.train`."""
    return run_verb("iap train", TrainSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
