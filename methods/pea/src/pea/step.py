"""One step of distillation: runs a batch of frozen outputs through the teacher, the adapter and
the student.

One denoiser serves as teacher and student: the teacher's pass builds no graph, the student's keeps
activations but no weight gradients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crosslingual.frozen.base import Base, Conditioning, Denoiser
from crosslingual.frozen.schedule import (
    Generators,
    Noising,
    choose_language,
    drop_captions,
)
from pea.method import BlockOutputs, pea_loss, seed_loss
from pea.settings import TrainSettings


@dataclass(frozen=True)
class Frozen:
    """The frozen parts that a step uses.

    Attributes:
        denoiser: the UNet, as teacher and student.
        noising: its noise schedule, on its device.
        null: states of the empty prompt: english_states (1, L, D), multilingual_states (1, M, C)
            and, for SDXL, english_pooled (1, P).
    """

    denoiser: Denoiser
    noising: Noising
    null: dict[str, Tensor]


def load_frozen(
    settings: TrainSettings, base: Base, null: dict[str, Tensor], device: torch.device
) -> Frozen:
    """Loads the base's denoiser; `null` comes from the data, without a batch axis."""
    return Frozen(
        base.load_denoiser(
            device,
            resolution=settings.resolution,
            mixed_precision=settings.mixed_precision,
            gradient_checkpointing=settings.gradient_checkpointing,
            compile=settings.compile,
        ),
        base.schedule(
            device=device,
            caption_dropout=settings.caption_dropout,
            noise_offset=settings.noise_offset,
        ),
        {name: tensor.to(device, torch.float32)[None] for name, tensor in null.items()},
    )


def pea_step(
    adapter: nn.Module,
    frozen: Frozen,
    batch: dict[str, Tensor],
    draws: Generators,
    settings: TrainSettings,
    stratified: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of a batch and its parts.

    Args:
        adapter: the adapter, or the engine around it.
        frozen: the denoiser, its schedule and the empty prompt.
        batch: arrays of `FrozenParts.encode` (fp16 as stored).
        draws: generators of all random draws; with one per row, a sample's draws do not depend on
            the batch that it is in.
        settings: settings of the run.
        stratified: for validation: spreads timesteps over equal spans and drops no caption.
    """
    device, null = frozen.denoiser.device, frozen.null
    noisy = frozen.noising.draw(batch, draws, stratified)
    native = (batch["native"] | ~batch["has_english"]).to(device)
    chosen = choose_language(batch["has_language"], draws)
    states = batch["multilingual_states"][torch.arange(len(chosen)), chosen]

    def with_empty(name: str, rows: Tensor) -> Tensor:
        return drop_captions(rows.to(device, torch.float32), null[name], noisy.dropped)

    def denoise(text: Conditioning) -> tuple[Tensor, list[Tensor]]:
        with BlockOutputs(frozen.denoiser.blocks()) as blocks:
            predicted = frozen.denoiser.predict(noisy.latents, noisy.timesteps, text)
        return predicted, blocks.outputs

    english = with_empty("english_states", batch["english_states"])
    pooled = None
    if "english_pooled" in batch:
        pooled = with_empty("english_pooled", batch["english_pooled"])
    with torch.no_grad():
        teacher_eps, teacher_blocks = denoise(Conditioning(english, pooled))
    # The empty prompt goes through the adapter: states and pooled vector are dropped together.
    read = adapter(with_empty("multilingual_states", states))
    student_eps, student_blocks = denoise(Conditioning(*read))
    if settings.variant == "seed":
        return seed_loss(
            student_eps,
            teacher_eps,
            noisy.target,
            native,
            settings.recon_weight,
            settings.temperature,
        )
    return pea_loss(
        student_eps,
        teacher_eps,
        noisy.target,
        student_blocks,
        teacher_blocks,
        native,
        settings.feature_weight,
    )
