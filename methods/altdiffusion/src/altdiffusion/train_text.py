"""`altdiffusion train-text`: settings, teacher, student, sentences, engine, loop.

altdiffusion train-text --config configs/testbed_text.yaml
torchrun --nproc_per_node 2 -m altdiffusion.train_text --config configs/testbed_text.yaml
deepspeed --module altdiffusion.train_text --config configs/testbed_text.yaml
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altdiffusion.altclip import save_altclip
from altdiffusion.config_text import TrainTextSettings
from altdiffusion.method import contrastive_loss, teacher_learning_loss
from altdiffusion.parallel_text import open_sources
from altdiffusion.sentence_batches import SentenceBatches
from altdiffusion.sentences import SentencePass, write_sentences
from altdiffusion.text_encoder import TextEncoder, build_student, save_text_encoder
from altdiffusion.text_validation import TextValidation
from altdiffusion.whole_folder import write_folder
from crosslingual.adapter.artifact import load_strict
from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual.frozen.weights import weights_hash
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite, full_state_dict
from crosslingual.training.processes import Ranks, StopRequest, start_processes
from crosslingual.training.progress import Progress

ZERO_0 = {"zero_optimization": {"stage": 0}}


def open_sentences(
    settings: TrainTextSettings, teacher: FrozenCLIP, student: TextEncoder, ranks: Ranks
) -> SentenceBatches:
    """Tokens and targets of `train_data`, made once in `output_dir/sentences`."""
    sources = open_sources(settings.train_data)
    by_target = settings.stage == "contrastive"
    passing = SentencePass(
        sources=sources,
        clip=teacher,
        tokenizer=student.tokenizer,
        max_length=student.max_length,
        languages=settings.languages,
        keep_english=settings.keep_english,
        pictures=by_target,
    )
    made_of = {
        "stage": settings.stage,
        "train_data": [[source.name, source.digest()] for source in sources],
        "teacher": settings.teacher,
        "teacher_revision": settings.teacher_revision,
        "teacher_weights": weights_hash(settings.teacher),
        "text_encoder": settings.text_encoder,
        "max_length": student.max_length,
        "languages": settings.languages,
        "keep_english": settings.keep_english,
    }
    folder = Path(settings.output_dir) / "sentences"
    write_sentences(folder, passing, made_of, ranks)
    return SentenceBatches(
        folder,
        batch_size=settings.train_batch_size,
        seed=settings.seed,
        ranks=ranks,
        pad=student.tokenizer.pad_token_id,
        by_target=by_target,
    )


def load_parts(settings: TrainTextSettings, ranks: Ranks) -> tuple[FrozenCLIP, TextEncoder]:
    """The frozen teacher and the student that trains."""
    teacher = load_clip(settings.teacher, settings.teacher_revision)
    teacher.model.to(ranks.device)
    torch.manual_seed(settings.seed)
    width = teacher.model.config.text_config.hidden_size
    student = build_student(
        settings.text_encoder, width, settings.text_encoder_revision, settings.max_length
    )
    if settings.gradient_checkpointing:
        student.model.activation_checkpointing_enable()
    student.model.train()  # no dropout: checkpointing works in this mode only
    return teacher, student


def build_training(settings: TrainTextSettings, student: nn.Module) -> Any:
    """The DeepSpeed engine around the student, all of which trains."""
    return build_engine(
        student,
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


def batch_loss(
    settings: TrainTextSettings, student: nn.Module, teacher: nn.Module, batch: dict[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of this rank's sentences; every process must call it.

    Args:
        settings: of the run.
        student: or the engine around it.
        teacher: the CLIPModel, of which the contrastive stage takes text projection and scale.
        batch: of `SentenceBatches`.
    """
    device = teacher.device
    ids, mask, target = (batch[name].to(device) for name in ("ids", "mask", "target"))
    said = student(ids, attention_mask=mask).pooler_output.float()
    if settings.stage == "teacher_learning":
        return teacher_learning_loss(said, target)
    joint = nn.functional.linear(said, teacher.text_projection.weight)
    return contrastive_loss(joint, target, teacher.logit_scale.exp())


def write_models(
    engine: Any, student: TextEncoder, teacher: FrozenCLIP, output_dir: Path, ranks: Ranks
) -> Path:
    """Exports `text_encoder` and `altclip` to a folder; every process must call it."""
    state = full_state_dict(engine)
    if ranks.rank == 0:
        # a fresh module: at ZeRO stage 3 this process has a part of each tensor alone
        trained = TextEncoder(
            type(student.model)(student.model.config), student.tokenizer, student.max_length
        )
        load_strict(trained.model, state)
        write_folder(output_dir / "text_encoder", lambda f: save_text_encoder(trained, f))
        clip = FrozenCLIP(**{**vars(teacher), "model": teacher.model.to("cpu")})
        write_folder(output_dir / "altclip", lambda folder: save_altclip(folder, trained, clip))
    torch.distributed.barrier()
    return output_dir / "text_encoder"


def train_text(settings: TrainTextSettings) -> Path:
    """Trains a student and exports it to `output_dir/text_encoder` and, with the teacher's vision
    tower, to `output_dir/altclip`.
    """
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    teacher, student = load_parts(settings, ranks)
    data = open_sentences(settings, teacher, student, ranks)
    validation = TextValidation(settings, teacher, student) if settings.validation_steps else None
    engine = build_training(settings, student.model)
    first, last, accumulation = 0, settings.max_train_steps, settings.gradient_accumulation_steps
    if resume is not None:
        first = load_checkpoint(engine, resume)["step"]
    if ranks.rank == 0:
        write_settings(settings, output_dir / "settings.yaml")
    batches = data.batches(first * accumulation)
    progress = Progress(
        last, output_dir, start_step=first, report_to=settings.report_to, rank=ranks.rank
    )
    with StopRequest() as stop:
        for step in range(first, last):
            for _ in range(accumulation):
                batch = next(batches)
                loss, parts = batch_loss(settings, engine, teacher.model, batch)
                if not torch.isfinite(loss):
                    check_finite(loss, parts, step=step + 1, keys=batch["keys"])
                engine.backward(loss)
                engine.step()
            num_samples = settings.train_batch_size * accumulation * ranks.world_size
            progress.step(step + 1, loss.detach(), parts, engine.get_lr()[0], num_samples)
            if validation is not None and (step + 1) % settings.validation_steps == 0:
                progress.log(validation.measure(engine), step + 1)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state={}, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_models(engine, student, teacher, output_dir, ranks)


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion train-text` and `python -m altdiffusion.train_text`."""
    return run_verb("altdiffusion train-text", TrainTextSettings, train_text, argv)


if __name__ == "__main__":
    sys.exit(main())
