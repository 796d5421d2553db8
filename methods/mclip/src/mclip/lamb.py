"""LAMB (arXiv 1904.00962, algorithm 2), the optimiser of the published TriKD: Adam's direction with
decoupled decay, scaled for each tensor to the norm of its weights.

It is pytorch_optimizer's `Lamb`, whose defaults are other rules: there the decay stands outside of
the trust ratio, the ratio is divided by Adam's first bias correction (ten times the rate at the
first step), and norms of weights count as at most 10, which those of published widths exceed.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from crosslingual.training.deepspeed_config import read_config
from mclip.config import TrainSettings


def lamb_maker(settings: TrainSettings) -> Callable[..., torch.optim.Optimizer]:
    """What makes the optimiser of parameters, `lr`, `betas` and `weight_decay`.

    Raises:
        ValueError: a ZeRO stage other than 0, which flattens the tensors that LAMB tells apart; or
            the optimiser's package is not installed.
    """
    config = settings.deepspeed_config
    if config is not None:
        zero = read_config(config, has_cuda=torch.cuda.is_available()).get("zero_optimization", {})
        if zero.get("stage", 0) > 0:
            raise ValueError(
                "optimizer lamb needs the tensors whole: use ZeRO stage 0 (leave out "
                "--deepspeed_config), or optimizer adamw"
            )
    try:
        from pytorch_optimizer import Lamb
    except ModuleNotFoundError as error:
        raise ValueError("optimizer lamb is pytorch_optimizer's: pip install it") from error

    def make(parameters: Iterable[nn.Parameter], **adam: Any) -> torch.optim.Optimizer:
        optimizer = Lamb(list(parameters), **adam, weight_decouple=False, adam_debias=True)
        optimizer.clamp = math.inf
        return optimizer

    return make
