"""Rehearsal: a share of the captions stays in languages that a model knows, so that it keeps them
while others train (experience replay, Rolnick et al., arXiv 1811.11682).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def rehearse(has_language_BN: Tensor, rehearsed_N: Tensor, rehearses_B: Tensor) -> Tensor:
    """Which languages each row may draw (B, N): those of the rehearsal in a row that rehearses, and
    the others elsewhere. A row that has none of its kind keeps all that it has.

    Args:
        has_language_BN: which languages each row has.
        rehearsed_N: which languages are rehearsed.
        rehearses_B: which rows rehearse.
    """
    kept_BN = has_language_BN & (rehearses_B[:, None] == rehearsed_N)
    return torch.where(kept_BN.any(dim=1, keepdim=True), kept_BN, has_language_BN)


def draw_rehearsal(
    batch: dict[str, Any],
    rehearsed: Sequence[bool] | None,
    share: float | None,
    draws: Sequence[torch.Generator],
) -> dict[str, Any]:
    """The batch with its `has_language` limited by `rehearse`, each row rehearsing with the chance
    `share`; as it is where nothing is rehearsed.
    """
    if rehearsed is None:
        return batch
    rehearses_B = torch.cat([torch.rand(1, generator=row) for row in draws]) < share
    has_language_BN = rehearse(batch["has_language"], torch.tensor(rehearsed), rehearses_B)
    return {**batch, "has_language": has_language_BN}
