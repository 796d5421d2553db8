"""`mclip train`, TriKD: settings, projectors, data, engine, loop.

mclip train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m mclip.train --config configs/testbed.yaml
deepspeed --module mclip.train --config configs/testbed.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress
from mclip.config import TrainSettings
from mclip.data import open_data
from mclip.export import write_model
from mclip.info import model_config
from mclip.lamb import lamb_maker
from mclip.method import MAX_LOGIT_SCALE, TriKD, trikd_loss
from mclip.validation import open_validation, validate

ZERO_0 = {"zero_optimization": {"stage": 0}}


def build_training(settings: TrainSettings, config: dict[str, Any]) -> Any:
    """The DeepSpeed engine around new projectors."""
    torch.manual_seed(settings.seed)
    return build_engine(
        TriKD(config),
        settings.deepspeed_config or ZERO_0,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(settings.adam_beta1, settings.adam_beta2),
        lr_scheduler=settings.lr_scheduler,
        lr_warmup_steps=settings.lr_warmup_steps,
        lr_end=settings.lr_end,
        max_train_steps=settings.max_train_steps,
        max_grad_norm=settings.max_grad_norm,
        train_batch_size=settings.train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        mixed_precision=settings.mixed_precision,
        make_optimizer=lamb_maker(settings) if settings.optimizer == "lamb" else torch.optim.AdamW,
    )


def batch_loss(
    engine: Any, batch: dict[str, Any], settings: TrainSettings, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """This rank's part of the loss of a batch, and its parts.

    Args:
        engine: around `TriKD`, or the module itself.
        batch: of `TriKDData.batches`.
        settings: of the run.
        device: where the projectors are.
    """
    images, texts, states = (
        batch[name].to(device).float() for name in ("image_embeds", "text_embeds", "states")
    )
    lengths = batch["lengths"].to(device)
    images, texts, captions, scale = engine(
        images, texts, states, lengths, settings.embed_batch_size
    )
    return trikd_loss(
        captions,
        images,
        texts,
        batch["is_english"].to(device),
        scale,
        itc_weight=settings.itc_weight,
        ttc_weight=settings.ttc_weight,
        ttc_scale=settings.ttc_scale,
        chunk_rows=settings.chunk_rows,
    )


def over_ranks(
    loss: Tensor, parts: dict[str, Tensor], ranks: Ranks
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and parts of the whole batch: the means of what the ranks have, on the CPU."""
    values = torch.stack([loss.detach(), *parts.values()])
    if ranks.world_size > 1:
        dist.all_reduce(values)
        values /= ranks.world_size
    whole, *rest = values.cpu().unbind()
    return whole, dict(zip(parts, rest, strict=True))


def limit_scale(engine: Any) -> None:
    """Holds the learned inverse temperature at 100, as CLIP does; ZeRO's own copy too."""
    from deepspeed.utils import safe_set_full_fp32_param

    logit_scale = engine.module.logit_scale
    if logit_scale.item() > MAX_LOGIT_SCALE:
        logit_scale.data.fill_(MAX_LOGIT_SCALE)
        if engine.zero_optimization_stage() > 0:
            safe_set_full_fp32_param(logit_scale, logit_scale.data)


def suspects(batch: dict[str, Any], keys: list[str], ranks: Ranks) -> list[str]:
    """The samples of all ranks that are no numbers themselves, the first few; if there are none,
    the first few of this rank. Every process must call it.
    """
    tokens = batch["states"].isfinite().all(dim=1).float()
    captions = torch.segment_reduce(tokens, "min", lengths=batch["lengths"])
    is_finite = batch["image_embeds"].isfinite().all(dim=1) & (captions > 0)
    found = [key for key, good in zip(keys, is_finite.tolist(), strict=True) if not good]
    lists = [found] * ranks.world_size
    dist.all_gather_object(lists, found)
    return [key for part in lists for key in part][:8] or keys[:8]


def train(settings: TrainSettings) -> Path:
    """Trains the projectors and exports them to `output_dir/model`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    data = open_data(settings, ranks)
    validation = open_validation(settings, data.parts)
    config = model_config(settings)
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
                # dropout: a function of seed, micro-step and rank, so that a resume needs no state
                place = micro_step * ranks.world_size + ranks.rank
                torch.manual_seed((settings.seed << 40) + place)
                loss, parts = batch_loss(engine, batch, settings, ranks.device)
                whole, parts = over_ranks(loss, parts, ranks)
                if not torch.isfinite(whole):
                    keys = suspects(batch, data.keys(batch), ranks)
                    check_finite(whole, parts, step=step + 1, keys=keys)
                engine.backward(loss)
                engine.step()
            limit_scale(engine)
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            progress.step(step + 1, whole, parts, engine.get_lr()[0], num_samples)
            if validation and (step + 1) % settings.validation_steps == 0 and ranks.rank == 0:
                recalls = validate(
                    engine.module, validation, settings.validation_rows, ranks.device
                )
                progress.log(recalls, step + 1)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state={}, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_model(engine, config, output_dir / "model", ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip train` and `python -m mclip.train`."""
    return run_verb("mclip train", TrainSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
