"""Muon, for the adapter's matrices: momentum whose update is made orthogonal.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale of the
update is that of Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, which makes it
as large as AdamW's at the same learning rate. Vectors are left to AdamW, in the same optimiser.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.'s polynomial


def orthogonal(matrix: Tensor, num_steps: int = 5) -> Tensor:
    """The orthogonal matrix near a matrix, singular values of 0.7 to 1.2, by Newton-Schulz in bf16,
    as Jordan et al. compute it: all that it needs is the matrix's directions.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(num_steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if is_tall else x).to(matrix.dtype)


class Muon(Optimizer):
    """Muon with Nesterov's momentum for matrices, Adam for everything else. Both decay weights as
    AdamW does.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        """`betas` are Adam's, `momentum` Muon's."""
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates every parameter that has a gradient; takes no closure."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update = _muon if parameter.ndim == 2 else _adam
                    update(parameter, self.state[parameter], group)


def _muon(matrix: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(matrix)
    mean = state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
    update = orthogonal(torch.lerp(matrix.grad, mean, group["momentum"]))
    matrix.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])


def _adam(vector: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(vector), "square": torch.zeros_like(vector)}
    state["step"] += 1
    first, second = group["betas"]
    mean = state["mean"].lerp_(vector.grad, 1 - first) / (1 - first ** state["step"])
    square = state["square"].lerp_(vector.grad.square(), 1 - second)
    square = square / (1 - second ** state["step"])
    vector.addcdiv_(mean, square.sqrt() + 1e-8, value=-group["lr"])
