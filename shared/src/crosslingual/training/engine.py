"""DeepSpeed's engine for training loops written out by hand: start-up, construction, stopping.

    ranks = start_processes()
    engine = build_engine(module, "ds/zero1.json", learning_rate=1e-4, max_train_steps=1000)
    with StopRequest() as stop:
        ...
            loss, parts = engine(batch)
            check_finite(loss, parts, step=step, keys=batch["keys"])
            engine.backward(loss)
            engine.step()
            if stop.requested(ranks): ...

Ranks whose graphs differ get silently wrong gradients at ZeRO 1-3: every rank runs every branch in
the same order, with weight 0 where it has nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.training.deepspeed_config import read_config, settle_config
from crosslingual.training.processes import Ranks, StopRequest, start_processes

__all__ = [
    "Ranks",
    "StopRequest",
    "build_engine",
    "check_finite",
    "full_state_dict",
    "start_processes",
    "trainable_shapes",
]


def build_engine(
    module: nn.Module,
    deepspeed_config: str | Path | Mapping[str, Any],
    *,
    learning_rate: float,
    max_train_steps: int,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    lr_scheduler: str = "constant",
    lr_warmup_steps: int = 0,
    lr_end: float = 0.0,
    max_grad_norm: float = 1.0,
    train_batch_size: int = 1,
    gradient_accumulation_steps: int = 1,
    mixed_precision: str = "no",
    make_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
) -> Any:
    """Builds the DeepSpeed engine of a module, with torch's AdamW on its trainable parameters.

    Batch sizes, clipping and mixed precision belong to the settings: the DeepSpeed configuration
    leaves them out, or says `"auto"`, or the same. bf16 is torch's autocast over fp32 weights, so
    a module returns `.float()` where its loss begins. Keep frozen parts outside of the module:
    inside they cost time at every step.

    Args:
        module: the trainable module; moved to this process's device.
        deepspeed_config: a JSON file or its content.
        learning_rate: the peak of the schedule.
        max_train_steps: optimiser steps of the whole run.
        weight_decay, betas: the optimiser's.
        lr_scheduler: a name of `diffusers.optimization.SchedulerType`, or `inverse_sqrt`.
        lr_warmup_steps, lr_end: optimiser steps from 0 to the peak; where `polynomial` ends.
        max_grad_norm: gradients are clipped to this norm; 0 clips nothing.
        train_batch_size: samples a process and micro-step.
        gradient_accumulation_steps: micro-steps an optimiser step.
        mixed_precision: `no` or `bf16`.
        make_optimizer: called with the trainable parameters, `lr`, `betas` and `weight_decay`.

    Returns:
        The `DeepSpeedEngine`: call it, `backward(loss)`, `step()`.

    Raises:
        ValueError: for a configuration or a module that DeepSpeed would accept and train wrongly.
        FileNotFoundError: for a configuration file that does not exist.
    """
    import deepspeed

    config = read_config(deepspeed_config, has_cuda=torch.cuda.is_available())
    micro_batch = train_batch_size * gradient_accumulation_steps
    settle_config(
        config,
        {
            "train_micro_batch_size_per_gpu": train_batch_size,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "train_batch_size": micro_batch * torch.distributed.get_world_size(),
            "gradient_clipping": max_grad_norm,
        },
        mixed_precision=mixed_precision,
    )
    trainable = _trainable_parameters(module)
    optimizer = make_optimizer(
        trainable.values(), lr=learning_rate, betas=betas, weight_decay=weight_decay
    )
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer,
        lr_scheduler=_schedule(optimizer, lr_scheduler, lr_warmup_steps, max_train_steps, lr_end),
        model_parameters=list(trainable.values()),
        config=config,
    )
    return engine


def full_state_dict(engine: Any) -> dict[str, Tensor]:
    """Gathers the trainable parameters in fp32; every process must call it.

    Args:
        engine: what `build_engine` returned.

    Returns:
        Name to CPU tensor, the same on all processes at any ZeRO stage.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    state = {}
    for name, parameter in _trainable_parameters(engine.module).items():
        is_partitioned = engine.zero_optimization_stage() > 0
        full = safe_get_full_fp32_param(parameter) if is_partitioned else parameter
        state[name] = full.detach().to("cpu", torch.float32, copy=True).reshape(_shape(parameter))
    return state


def trainable_shapes(engine: Any) -> dict[str, list[int]]:
    """Returns the names and full shapes of what trains, at any ZeRO stage."""
    parameters = _trainable_parameters(engine.module)
    return {name: list(_shape(parameter)) for name, parameter in parameters.items()}


def check_finite(
    loss: Tensor | float, parts: Mapping[str, Tensor | float], *, step: int, keys: Sequence[str]
) -> None:
    """Stops a run whose loss is not a number.

    Args:
        loss: the scalar that is about to be differentiated.
        parts: its named parts.
        step: the optimiser step, for the message.
        keys: the samples of this micro-batch, for the message.

    Raises:
        ValueError: naming the step, the samples and each part, if the loss is NaN or infinite.
    """
    value = torch.as_tensor(loss).item()
    if math.isfinite(value):
        return
    values = ", ".join(f"{name} {torch.as_tensor(v).item():.4g}" for name, v in parts.items())
    raise ValueError(
        f"the loss of step {step} is {value} ({values}) on samples {', '.join(keys)}; lower "
        "--learning_rate, or look at these samples, and resume from the last checkpoint"
    )


def _trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("nothing to train: no parameter of the module requires a gradient")
    scalars = [name for name, p in trainable.items() if len(_shape(p)) == 0]
    if scalars:
        raise ValueError(f"DeepSpeed takes no 0-dim parameters; give {scalars} the shape (1,)")
    return trainable


def _shape(parameter: nn.Parameter) -> torch.Size:
    """Returns the full shape, which ZeRO 3 keeps in an attribute of its partitioned parameters."""
    return getattr(parameter, "ds_shape", parameter.shape)


def _schedule(
    optimizer: torch.optim.Optimizer, name: str, num_warmup: int, num_steps: int, lr_end: float
) -> Any:
    from diffusers import optimization
    from transformers import get_inverse_sqrt_schedule

    names = [kind.value for kind in optimization.SchedulerType if kind != "piecewise_constant"]
    names.append("inverse_sqrt")
    if name not in names:
        raise ValueError(f"unknown lr_scheduler '{name}'; there are {', '.join(names)}")
    if name == "inverse_sqrt":  # falls as 1 / sqrt(step) from the warm-up's end
        return get_inverse_sqrt_schedule(optimizer, num_warmup)
    if name == "polynomial":
        # a warm-up as long as the run would divide by the no steps that are left after it
        return optimization.get_polynomial_decay_schedule_with_warmup(
            optimizer, num_warmup, max(num_steps, num_warmup + 1), lr_end=lr_end
        )
    return optimization.get_scheduler(
        name, optimizer, num_warmup_steps=num_warmup, num_training_steps=num_steps
    )
