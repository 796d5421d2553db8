"""`mclip train`: triangle knowledge distillation (TriKD), stage 2."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crosslingual.training.engine import AdamW
from crosslingual.training.run import Run
from mclip.artifact import model_config, save_model, start_model
from mclip.data import open_data
from mclip.settings import TrainSettings
from mclip.step import limit_scale, suspects, trikd_step
from mclip.validation import open_validation, validate


def train(settings: TrainSettings) -> Path:
    """Trains the projectors and exports them to `output_dir/model`."""
    run = Run(settings)
    data = open_data(settings, run.ranks)
    validation = open_validation(settings, data.parts)
    config = model_config(settings)
    model = start_model(settings, config)
    trikd = run.prepare(model, choose_optimizer(settings, run.zero_stage))
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            torch.manual_seed((settings.seed << 40) + draws.place)  # dropout, the same on a resume
            loss, parts = trikd_step(trikd, batch, settings, run.ranks.device)
            run.backward(loss, parts, keys=partial(suspects, data, batch))
        limit_scale(trikd)
        run.end_step()
        if run.validates(step) and run.ranks.rank == 0:
            run.log(validate(trikd.module, validation, settings, run.ranks.device), step)
    return run.finish(lambda state: save_model(state, config, run.output_dir / "model"))


def choose_optimizer(
    settings: TrainSettings, zero_stage: int
) -> Callable[..., torch.optim.Optimizer]:
    """AdamW, or the LAMB that the published TriKD trained with.

    Raises:
        ValueError: LAMB at a ZeRO stage other than 0, which flattens the tensors that LAMB tells
            apart; or the package of LAMB is not installed.
    """
    if settings.optimizer == "adamw":
        return AdamW
    if zero_stage > 0:
        raise ValueError(
            "optimizer lamb needs the tensors whole: use ZeRO stage 0 (leave out "
            "--deepspeed_config), or optimizer adamw"
        )
    try:
        import pytorch_optimizer  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError("optimizer lamb is pytorch_optimizer's: pip install it") from error
    return make_lamb


def make_lamb(parameters: Iterable[nn.Parameter], **adam: Any) -> torch.optim.Optimizer:
    """LAMB (arXiv 1904.00962, algorithm 2): Adam's direction with decoupled decay, scaled for each
    tensor to the norm of its weights.

    The defaults of pytorch_optimizer's `Lamb` are other rules: the decay is outside of the trust
    ratio, the ratio is divided by Adam's first bias correction (ten times the rate at the first
    step), and norms of weights count as at most 10, which those of the published widths exceed.

    Args:
        parameters: what trains.
        adam: `lr`, `betas` and `weight_decay`.
    """
    from pytorch_optimizer import Lamb

    optimizer = Lamb(list(parameters), **adam, weight_decouple=False, adam_debias=True)
    optimizer.clamp = math.inf
    return optimizer
