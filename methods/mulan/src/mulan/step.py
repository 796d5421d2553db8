"""One step of alignment: runs a batch of frozen outputs through the adapter and, for the image
loss, through the frozen denoiser.

The adapter runs once per step, and both losses use its output. The denoiser keeps activations but
no weight gradients.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.features.frozen_parts import placed
from crosslingual.frozen.base import Base, Conditioning, Denoiser
from crosslingual.frozen.schedule import (
    Generators,
    Noising,
    choose_language,
    draw_dropped,
    drop_captions,
    one_a_row,
)
from mulan.method import Adapted, image_loss, language_loss, mulan_loss
from mulan.settings import TrainSettings


@dataclass(frozen=True)
class Frozen:
    """The frozen parts that a step uses.

    Attributes:
        denoiser: the denoiser; None for training on captions only.
        noising: its noise schedule, or None.
        null: arrays of the empty prompt from `FrozenParts.null`, with a first axis of 1.
        numbers: indices of the training languages in a seed adapter, None for other forms.
        device: device that the step runs on.
    """

    denoiser: Denoiser | None
    noising: Noising | None
    null: dict[str, Tensor]
    numbers: Tensor | None
    device: torch.device

    def or_null(self, name: str, array: Tensor, dropped: Tensor) -> Tensor:
        """Replaces the dropped rows of a batch's array by the empty prompt's."""
        return drop_captions(placed(array, self.device), self.null[name], dropped)


def load_frozen(
    settings: TrainSettings, config: dict[str, Any], null: dict[str, Tensor], device: torch.device
) -> Frozen:
    """Loads the denoiser, unless training uses captions only.

    Args:
        settings: settings of the run.
        config: the adapter's config.
        null: the empty prompt's arrays from the data.
        device: device that the step runs on.

    Raises:
        ValueError: for language alignment, if the adapter and the English encoder give different
            numbers of states.
    """
    is_seed = config["variant"] == "seed"
    if settings.alignment != "image":
        name = "max_length" if is_seed else "num_queries"
        given, wanted = config[name], len(null["english_states"])
        if given != wanted:
            raise ValueError(
                f"alignment {settings.alignment} compares states position by position, and the "
                f"English encoder gives {wanted}: use --{name} {wanted}, not {given}"
            )
    numbers = denoiser = noising = None
    if is_seed:
        places = [config["languages"].index(language) for language in settings.languages]
        numbers = torch.tensor(places, device=device)
    if settings.has_pictures:
        base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
        noising = base.schedule(
            device=device,
            caption_dropout=settings.caption_dropout,
            noise_offset=settings.noise_offset,
        )
        denoiser = base.load_denoiser(
            device,
            resolution=settings.resolution,
            mixed_precision=settings.mixed_precision,
            gradient_checkpointing=settings.gradient_checkpointing,
            compile=settings.compile,
            project_text=not config["replaces_projection"],
        )
    rows = {name: placed(array, device)[None] for name, array in null.items()}
    return Frozen(denoiser, noising, rows, numbers, device)


def mulan_step(
    settings: TrainSettings,
    frozen: Frozen,
    adapter: nn.Module,
    batch: dict[str, Tensor],
    draws: Generators,
    stratified: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of a batch and its parts.

    Args:
        settings: settings of the run.
        frozen: the frozen parts.
        adapter: the adapter, or the engine around it.
        batch: arrays of `FrozenParts.encode` (fp16 as stored).
        draws: generators of all random draws; with one per row, a sample's draws do not depend on
            the batch that it is in.
        stratified: for validation: spreads timesteps over equal spans and drops no caption.
    """
    num_rows = len(batch["has_language"])
    if frozen.noising is None:
        share = 0.0 if stratified else settings.caption_dropout
        dropped = draw_dropped(one_a_row(draws, num_rows), share).to(frozen.device)
    else:
        noisy = frozen.noising.draw(batch, draws, stratified)
        dropped = noisy.dropped
    chosen = choose_language(batch["has_language"], draws)
    rows = torch.arange(num_rows), chosen
    states = frozen.or_null("multilingual_states", batch["multilingual_states"][rows], dropped)
    if frozen.numbers is None:
        adapted = adapter(states)
    else:
        adapted = adapter(states, frozen.numbers[chosen.to(frozen.device)])
    if settings.null_policy == "zeros":
        adapted = _zero_rows(adapted, dropped)
    image = language = mask = None
    if frozen.denoiser is not None:
        if "multilingual_mask" in batch:
            mask = frozen.or_null("multilingual_mask", batch["multilingual_mask"][rows], dropped)
        text = Conditioning(*adapted, mask)
        predicted = frozen.denoiser.predict(noisy.latents, noisy.timesteps, text)
        image = image_loss(predicted, noisy.target)
    if settings.alignment != "image":
        names = ("english_states", "english_pooled")
        english = tuple(
            frozen.or_null(name, batch[name], dropped) if name in batch else None for name in names
        )
        has_teacher = _has_teacher(settings, batch, chosen).to(frozen.device)
        if settings.null_policy == "zeros":
            has_teacher = has_teacher & ~dropped
        else:
            has_teacher = has_teacher | dropped  # the empty prompt is the same in all languages
        language = language_loss(adapted, english, has_teacher)
    return mulan_loss(image, language, settings.language_weight)


def _has_teacher(settings: TrainSettings, batch: dict[str, Tensor], chosen: Tensor) -> Tensor:
    """Rows whose chosen caption is the English one or its translation."""
    is_english = torch.tensor([code == "en" for code in settings.languages])[chosen]
    return batch["has_english"] & (is_english | ~batch["native"])


def _zero_rows(adapted: Adapted, dropped: Tensor) -> Adapted:
    """Zeros the rows of dropped captions, as SDXL's own pipeline does for an empty prompt."""
    states, pooled = adapted
    return (
        drop_captions(states, torch.zeros_like(states[:1]), dropped),
        None if pooled is None else drop_captions(pooled, torch.zeros_like(pooled[:1]), dropped),
    )
