"""One step of distillation: runs a batch of frozen outputs through the teacher, the adapter and
the student.

One denoiser serves as teacher and student: the teacher's pass builds no graph, the student's keeps
activations but no weight gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crosslingual.features.frozen_parts import placed
from crosslingual.frozen.base import Base, Conditioning, Denoiser
from crosslingual.frozen.schedule import (
    Generators,
    Noising,
    NoisyLatents,
    choose_language,
    drop_captions,
)
from pea.method import (
    BlockOutputs,
    pea_loss,
    seed_loss,
)
from pea.settings import TrainSettings


@dataclass(frozen=True)
class Frozen:
    """The frozen parts that a step uses.

    Attributes:
        denoiser: the denoiser, as teacher and student.
        noising: its noise schedule, on its device.
        layers: the denoiser's modules whose outputs are matched; empty if feature_weight is 0.
        null: arrays of the empty prompt: english_states (1, L, D), multilingual_states (1, M, C)
            and, if the base takes them, english_pooled (1, P) and both masks.
    """

    denoiser: Denoiser
    layers: list[nn.Module]
    noising: Noising
    null: dict[str, Tensor]


def load_frozen(
    settings: TrainSettings, base: Base, null: dict[str, Tensor], device: torch.device
) -> Frozen:
    """Loads the base's denoiser; `null` comes from the data, without a batch axis.

    Raises:
        ValueError: the denoiser has no block of a number in `feature_blocks`, or no
            cross-attention for a warm start; or there is none for `warm_start_queries`.
    """
    if settings.warm_start_share and not base.family.has_cross_attention:
        raise ValueError(
            f"warm_start_share needs cross-attentions, and {base.id} reads text and picture in one "
            "attention: leave it out"
        )
    if settings.warm_start_queries and not settings.warm_start_share:
        raise ValueError("warm_start_queries is of the warm start: give a warm_start_share too")
    if settings.warm_start_draws and not settings.warm_start_share:
        raise ValueError("warm_start_draws is of the warm start: give a warm_start_share too")
    if settings.feature_blocks:  # before the weights are read
        shape = base.wrap_denoiser(base.denoiser_on_meta(), resolution=settings.resolution)
        choose_layers(shape, settings)
    denoiser = base.load_denoiser(
        device,
        resolution=settings.resolution,
        mixed_precision=settings.mixed_precision,
        gradient_checkpointing=settings.gradient_checkpointing,
        compile=settings.compile,
    )
    return Frozen(
        denoiser,
        choose_layers(denoiser, settings),
        base.schedule(
            device=device,
            caption_dropout=settings.caption_dropout,
            noise_offset=settings.noise_offset,
        ),
        {name: placed(tensor, device)[None] for name, tensor in null.items()},
    )


def choose_layers(denoiser: Denoiser, settings: TrainSettings) -> list[nn.Module]:
    """The modules whose outputs are matched: the blocks, or all attentions in them, of the numbers
    in `feature_blocks`, or of all blocks if that is empty.

    Raises:
        ValueError: there is no block of such a number.
    """
    if not settings.feature_weight or settings.variant == "seed":
        return []
    blocks = denoiser.blocks()
    unknown = [number for number in settings.feature_blocks if not 0 <= number < len(blocks)]
    if unknown:
        raise ValueError(
            f"the denoiser has no block {unknown[0]}: feature_blocks are numbers from 0 to "
            f"{len(blocks) - 1}"
        )
    chosen = [blocks[number] for number in settings.feature_blocks or range(len(blocks))]
    if settings.feature_outputs == "blocks":
        return chosen
    inside = {id(module) for block in chosen for module in block.modules()}
    return [attention for attention in denoiser.attentions() if id(attention) in inside]


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
    noisy = draw_noisy(frozen, batch, draws, settings, stratified)
    native = (batch["native"] | ~batch["has_english"]).to(device)
    chosen = choose_language(batch["has_language"], draws)
    states = batch["multilingual_states"][torch.arange(len(chosen)), chosen]

    def with_empty(name: str, rows: Tensor | None) -> Tensor | None:
        if rows is None:
            return None
        return drop_captions(placed(rows, device), null[name], noisy.dropped)

    def denoise(text: Conditioning) -> tuple[Tensor, list[Tensor]]:
        with BlockOutputs(frozen.layers, frozen.denoiser.picture_states) as blocks:
            predicted = frozen.denoiser.predict(noisy.latents, noisy.timesteps, text)
        return predicted, blocks.outputs

    names = ("english_states", "english_pooled", "english_mask")
    english = Conditioning(*(with_empty(name, batch.get(name)) for name in names))
    with torch.no_grad():
        teacher_eps, teacher_blocks = denoise(english)
    # The empty prompt goes through the adapter: states and pooled vector are dropped together.
    read = adapter(with_empty("multilingual_states", states))
    mask = batch.get("multilingual_mask")
    if mask is not None:
        mask = with_empty("multilingual_mask", mask[torch.arange(len(chosen)), chosen])
    student_eps, student_blocks = denoise(Conditioning(*read, mask))
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
        settings.feature_distance,
        settings.output_weight,
    )


def draw_noisy(
    frozen: Frozen,
    batch: dict[str, Tensor],
    draws: Generators,
    settings: TrainSettings,
    stratified: bool = False,
) -> NoisyLatents:
    """What teacher and student denoise: noisy latents of the batch's pictures, or pure noise.

    Raises:
        ValueError: a sample has neither an English caption nor a picture to learn from.
    """
    if settings.pictures:
        return frozen.noising.draw(batch, draws, stratified)
    check_taught(batch)
    return frozen.noising.pure(len(batch["native"]), settings.resolution, draws, stratified)


def check_taught(arrays: Mapping[str, Tensor], keys: Sequence[str] | None = None) -> None:
    """Whether English can teach every sample, as it has to without pictures.

    Args:
        arrays: `native` and `has_english` (B,).
        keys: the samples' names, for the error.

    Raises:
        ValueError: one has no English caption, or none that its others translate.
    """
    untaught = (arrays["native"] | ~arrays["has_english"]).nonzero().flatten().tolist()
    if untaught:
        sample = f"sample {keys[untaught[0]]}" if keys else "a sample"
        raise ValueError(
            f"without pictures English alone can teach, and {sample} has no parallel English "
            "caption: write shards without such samples, or leave out --pictures false"
        )
