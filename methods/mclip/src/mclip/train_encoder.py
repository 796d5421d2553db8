"""`mclip train-encoder`: settings, translation model, parallel text, engine, loop.

Stage 1 in two steps: a trains a decoder on the frozen encoder, b encoder and decoder, so that
sentences come to lie where their translations do.

mclip train-encoder --config configs/testbed_step_a.yaml
torchrun --nproc_per_node 2 -m mclip.train_encoder --config configs/testbed_step_b.yaml
deepspeed --module mclip.train_encoder --config configs/testbed_step_b.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress
from mclip.config_text import TrainEncoderSettings
from mclip.encoder_validation import open_validation, validate
from mclip.parallel_text import Pair, expand_pairs, open_sources
from mclip.token_batches import TokenBatches
from mclip.tokens import (
    check_fresh,
    describe,
    is_tokens,
    load_tokenizer,
    read_index,
    tokenizer_hash,
    write_tokens,
)
from mclip.translation import TranslationModel, set_encoder_dropout, set_trainable
from mclip.translation_folder import (
    ENCODER_FOLDER,
    build_translation,
    load_translation,
    save_translation,
)
from mclip.translation_loss import enhancement_loss

ZERO_0 = {"zero_optimization": {"stage": 0}}


def open_data(settings: TrainEncoderSettings, ranks: Ranks) -> tuple[Path, list[Pair]]:
    """The folder of tokens and the directions that train; text is tokenised first, into
    `output_dir/tokens`, where it stays.

    Raises:
        FileNotFoundError: there is no such text.
        ValueError: the tokens are another tokenizer's, or a pair's language is not there.
    """
    if settings.translation_model is not None:
        encoder, revision = f"{settings.translation_model}/{ENCODER_FOLDER}", None
    else:
        encoder, revision = settings.text_encoder, settings.text_encoder_revision
    tokenizer, max_length = load_tokenizer(encoder, revision, settings.max_length)
    names = settings.train_data
    if len(names) == 1 and is_tokens(names[0]):
        folder, index = Path(names[0]), read_index(names[0])
        made_of = {"tokenizer": tokenizer_hash(tokenizer)}
        if settings.max_length is not None:
            made_of["max_length"] = max_length
        check_fresh(index, made_of, folder)
        return folder, expand_pairs(settings.pairs, index["made_of"]["pairs"])
    sources = open_sources(names)
    pairs = expand_pairs(settings.pairs, [source.languages for source in sources])
    folder = Path(settings.output_dir) / "tokens"
    index = write_tokens(sources, pairs, folder, tokenizer, max_length, ranks)
    if ranks.rank == 0:
        print(describe(index))
    return folder, pairs


def open_model(settings: TrainEncoderSettings, pairs: list[Pair]) -> tuple[TranslationModel, Any]:
    """The model of a former step, or a fresh decoder on a pretrained encoder; and the tokenizer.

    Raises:
        ValueError: a former step's model does not translate into a language that trains.
    """
    languages = {target for _, target in pairs}
    if settings.both_ways:
        languages |= {source for source, _ in pairs}
    if settings.translation_model is not None:
        model, tokenizer = load_translation(settings.translation_model)
        for language in sorted(languages):
            model.language_index(language)
    else:
        torch.manual_seed(settings.seed)
        model, tokenizer = build_translation(
            settings.text_encoder,
            sorted(languages),
            num_decoder_layers=settings.num_decoder_layers,
            decoder_ffn_width=settings.decoder_ffn_width,
            num_decoder_heads=settings.num_decoder_heads,
            dropout=settings.dropout,
            revision=settings.text_encoder_revision,
        )
    if settings.encoder_dropout is not None:
        set_encoder_dropout(model, settings.encoder_dropout)
    set_trainable(model, settings.step)
    return model, tokenizer


def build_training(settings: TrainEncoderSettings, model: TranslationModel) -> Any:
    """The DeepSpeed engine around the model.

    Raises:
        ValueError: for ZeRO stage 3, at which no process has the whole model to validate and save.
    """
    engine = build_engine(
        model,
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
    )
    if engine.zero_optimization_stage() == 3:
        raise ValueError("train-encoder works at ZeRO stages 0 to 2; use ds/zero2.json")
    return engine


def batch_loss(
    settings: TrainEncoderSettings,
    model: Any,
    embedding_weight: Tensor,
    batch: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step, and its parts, of this process's sentences; every process must call it.

    Args:
        settings: of the step.
        model: the translation model, or the engine around it.
        embedding_weight: the model's.
        batch: what `TokenBatches` yields, on the model's device.
    """
    output = model(batch, contrast=settings.step == "b", both_ways=settings.both_ways)
    is_bf16 = settings.mixed_precision == "bf16"
    return enhancement_loss(
        *output,
        embedding_weight,
        label_smoothing=settings.label_smoothing,
        ctl_weight=settings.ctl_weight,
        ctl_temperature=settings.ctl_temperature,
        chunk_tokens=settings.chunk_tokens,
        chunk_rows=settings.chunk_rows,
        scores_dtype=torch.bfloat16 if is_bf16 else torch.float32,
    )


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def seed_dropout(settings: TrainEncoderSettings, micro_step: int, ranks: Ranks) -> None:
    """Makes what dropout draws a function of (seed, micro-step, rank)."""
    place = micro_step * ranks.world_size + ranks.rank
    torch.manual_seed((settings.seed * 0x9E3779B1 + place) % 2**63)


def mean_over_ranks(values: dict[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """Means of the processes' scalars; every process must call it."""
    stacked = torch.stack([*values.values()])
    if ranks.world_size > 1:
        torch.distributed.all_reduce(stacked)
    means = (stacked / ranks.world_size).tolist()
    return dict(zip(values, means, strict=True))


def train_encoder(settings: TrainEncoderSettings) -> Path:
    """Trains a step of stage 1 and writes the translation model to `output_dir/translation`."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    folder, pairs = open_data(settings, ranks)
    held_out = open_validation(settings, pairs)
    model, tokenizer = open_model(settings, pairs)
    data = TokenBatches(
        folder,
        pairs,
        batch_size=settings.train_batch_size,
        temperature=settings.pair_temperature,
        seed=settings.seed,
        ranks=ranks,
        pad=model.pad,
    )
    engine = build_training(settings, model)
    first, last, accumulation = 0, settings.max_train_steps, settings.gradient_accumulation_steps
    if resume is not None:
        first = load_checkpoint(engine, resume)["step"]
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
                batch = to_device(next(batches), ranks.device)
                seed_dropout(settings, micro_step, ranks)
                loss, parts = batch_loss(settings, engine, model.embedding_weight, batch)
                if not torch.isfinite(loss):
                    check_finite(loss, parts, step=step + 1, keys=batch["keys"])
                engine.backward(loss)
                engine.step()
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            values = mean_over_ranks({"loss": loss.detach(), **parts}, ranks)
            progress.step(step + 1, values.pop("loss"), values, engine.get_lr()[0], num_samples)
            if held_out and (step + 1) % settings.validation_steps == 0:
                found = validate(settings, model, tokenizer, held_out, pairs)
                progress.log(found, step + 1)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state={}, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    if ranks.rank == 0:
        save_translation(output_dir / "translation", model, tokenizer)
    torch.distributed.barrier()
    return output_dir / "translation"


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip train-encoder` and `python -m mclip.train_encoder`."""
    return run_verb("mclip train-encoder", TrainEncoderSettings, train_encoder, argv)


if __name__ == "__main__":
    sys.exit(main())
