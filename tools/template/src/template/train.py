"""`template train`: settings, data, adapter, engine, loop.

template train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m template.train --config configs/testbed.yaml
deepspeed --module template.train --config configs/testbed.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.schedule import choose_language, drop_captions
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite
from crosslingual.training.processes import StopRequest, row_generators, start_processes
from crosslingual.training.progress import Progress
from template.config import TrainSettings
from template.data import open_data
from template.export import write_adapter
from template.info import adapter_config
from template.method import build_adapter, text_space_loss

ZERO_0 = {"zero_optimization": {"stage": 0}}


def batch_loss(
    adapter: nn.Module,
    batch: dict[str, Tensor],
    null: dict[str, Tensor],
    settings: TrainSettings,
    generators: list[torch.Generator],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch of frozen states and its parts.

    Args:
        adapter: or the engine around it.
        batch: arrays of `FrozenParts.encode` (fp16 as stored).
        null: the empty prompt's, by the same names, on the adapter's device.
        settings: of the run.
        generators: one a row, of its language and whether its caption is dropped.
    """
    device = null["english_states"].device
    chosen = choose_language(batch["has_language"], generators)
    chances = torch.cat([torch.rand(1, generator=row) for row in generators])
    dropped = chances < settings.caption_dropout
    # A dropped row has a teacher in any case: the English encoder's empty prompt.
    has_teacher = (batch["has_english"] & ~batch["native"]) | dropped
    captions = batch["multilingual_states"][torch.arange(len(chosen)), chosen]
    batch = {**batch, "multilingual_states": captions}
    states = {
        name: drop_captions(batch[name].to(device, torch.float32), empty, dropped.to(device))
        for name, empty in null.items()
    }
    student, pooled = adapter(states["multilingual_states"])
    teacher, teacher_pooled = states["english_states"], states.get("english_pooled")
    return text_space_loss(student, teacher, has_teacher.to(device), pooled, teacher_pooled)


def build_training(settings: TrainSettings, config: dict[str, Any]) -> Any:
    """The DeepSpeed engine around a new adapter."""
    torch.manual_seed(settings.seed)
    return build_engine(
        build_adapter(config),
        settings.deepspeed_config or ZERO_0,
        learning_rate=settings.learning_rate,
        weight_decay=settings.adam_weight_decay,
        lr_scheduler=settings.lr_scheduler,
        lr_warmup_steps=settings.lr_warmup_steps,
        max_train_steps=settings.max_train_steps,
        max_grad_norm=settings.max_grad_norm,
        train_batch_size=settings.train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        mixed_precision=settings.mixed_precision,
    )


def train(settings: TrainSettings) -> Path:
    """Trains an adapter and exports it to `output_dir/adapter`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    config = adapter_config(settings)
    data = open_data(settings, ranks)
    null = {name: array.to(ranks.device, torch.float32) for name, array in data.null.items()}
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
                loss, parts = batch_loss(engine, batch, null, settings, generators)
                if not torch.isfinite(loss):
                    check_finite(loss, parts, step=step + 1, keys=data.keys(batch))
                engine.backward(loss)
                engine.step()
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            progress.step(step + 1, loss.detach(), parts, engine.get_lr()[0], num_samples)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state={}, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_adapter(engine, config, output_dir / "adapter", ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `template train` and `python -m template.train`."""
    return run_verb("template train", TrainSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
