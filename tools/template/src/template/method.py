"""Text-space MSE: a token-wise MLP after a frozen multilingual encoder, trained to match the
English encoder's states, position by position.

It needs only parallel captions, and neither pictures nor the UNet. It is the text half of GlueGen
(Qin et al., "GlueGen: Plug and Play Multi-modal Encoders for X-to-image Generation", ICCV 2023,
arXiv 2303.10056), which adds a reconstruction and an adversarial loss, and it is the baseline for
methods that train through the UNet.

Shapes: B batch, L tokens, C encoder width, D cross-attention width, P pooled width.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class TextSpaceAdapter(nn.Module):
    """LN -> Linear -> GELU -> Linear, and for SDXL a linear layer from the mean hidden state to the
    pooled vector.
    """

    def __init__(self, encoder_width: int, width: int, hidden_width: int, pooled_width: int | None):
        """C, D, the width of the hidden layer, and P or None."""
        super().__init__()
        self.norm = nn.LayerNorm(encoder_width)
        self.hidden = nn.Linear(encoder_width, hidden_width)
        self.states = nn.Linear(hidden_width, width)
        self.pooled = nn.Linear(hidden_width, pooled_width) if pooled_width else None

    def forward(self, states_BLC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Token states to cross-attention states (B, L, D) and the pooled vector (B, P) or None."""
        hidden_BLH = F.gelu(self.hidden(self.norm(states_BLC)))
        pooled_BP = None if self.pooled is None else self.pooled(hidden_BLH.mean(dim=1))
        return self.states(hidden_BLH), pooled_BP


def build_adapter(config: dict[str, Any]) -> nn.Module:
    """Builds the adapter that a config describes by its widths; `pooled_width` is None for bases
    without a pooled vector.
    """
    return TextSpaceAdapter(
        config["encoder_width"], config["width"], config["hidden_width"], config["pooled_width"]
    )


def _squared_error(student: Tensor, teacher: Tensor, rows_B: Tensor) -> Tensor:
    """The mean over the chosen rows, or 0 without any, so that every rank has the same graph."""
    errors_B = (student.float() - teacher.float()).square().flatten(1).mean(dim=1)
    return (errors_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def text_space_loss(
    student_BLD: Tensor,
    teacher_BLD: Tensor,
    has_teacher_B: Tensor,
    student_pooled_BP: Tensor | None = None,
    teacher_pooled_BP: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The squared error between the adapter's states and the English encoder's.

    L = mean (S - T)^2 + mean (p_S - p_T)^2, means over the rows with a teacher, all positions (also
    padding, which the UNet attends to) and all entries. Errors are computed in fp32.

    Args:
        student_BLD: the adapter's states.
        teacher_BLD: the English encoder's last hidden state, as the UNet takes it.
        has_teacher_B: whether a row's captions translate each other; other rows do not count.
        student_pooled_BP, teacher_pooled_BP: the pooled vectors, for bases that take them.

    Raises:
        ValueError: the two encoders' states differ in number or width.
    """
    if student_BLD.shape != teacher_BLD.shape:
        raise ValueError(
            f"the adapter's states are {tuple(student_BLD.shape)}, the English encoder's "
            f"{tuple(teacher_BLD.shape)}: set --max_length {teacher_BLD.shape[1]}"
        )
    rows_B = has_teacher_B.float()
    loss = _squared_error(student_BLD, teacher_BLD, rows_B)
    parts = {"states": loss.detach()}
    if student_pooled_BP is not None:
        pooled = _squared_error(student_pooled_BP, teacher_pooled_BP, rows_B)
        loss, parts["pooled"] = loss + pooled, pooled.detach()
    return loss, parts
