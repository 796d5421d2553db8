"""One step: compares the adapter's states for a batch with the English encoder's."""

import torch
from torch import Tensor, nn

from crosslingual.frozen.schedule import (
    Generators,
    choose_language,
    draw_dropped,
    drop_captions,
)
from template.method import text_space_loss
from template.settings import TrainSettings


def text_space_step(
    adapter: nn.Module,
    null: dict[str, Tensor],
    batch: dict[str, Tensor],
    draws: Generators,
    settings: TrainSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of a batch and its parts.

    Args:
        adapter: the adapter, or the engine around it.
        null: the empty prompt's arrays, by the batch's names, on the adapter's device.
        batch: arrays of `FrozenParts.encode` (fp16 as stored).
        draws: generators, one per row, which draw its language and whether to drop its caption.
        settings: settings of the run.
    """
    device = null["english_states"].device
    chosen = choose_language(batch["has_language"], draws)
    dropped = draw_dropped(draws, settings.caption_dropout)
    # A dropped row always has a teacher: the English encoder's empty prompt.
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
