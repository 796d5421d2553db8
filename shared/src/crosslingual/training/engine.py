"""DeepSpeed's engine for training loops written out by hand: start-up, construction, stopping.

    ranks = start_processes()
    engine = build_engine(module, RunSettings(learning_rate=1e-4, max_train_steps=1000))
    with closing(StopRequest()) as stop:
        ...
            loss, parts = engine(batch)
            check_finite(loss, parts, step=step, keys=batch["keys"])
            engine.backward(loss)
            engine.step()
            if stop.requested(ranks): ...

Ranks whose graphs differ get silently wrong gradients at ZeRO 1-3: every rank runs every branch in
the same order, with weight 0 where it has nothing.
"""

import functools
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.training.deepspeed_config import read_config, settle_config
from crosslingual.training.settings import LrScheduler, RunSettings

# One kernel for all of a tensor's update: the several of the plain form take longer, most where a
# module has many tensors. A run that goes on from a checkpoint of the plain form stays plain.
AdamW = functools.partial(torch.optim.AdamW, fused=True)


def build_engine(
    module: nn.Module,
    settings: RunSettings,
    make_optimizer: Callable[..., torch.optim.Optimizer] = AdamW,
) -> Any:
    """Builds the DeepSpeed engine of a module, with torch's AdamW, fused, on what trains in it.

    Batch sizes, clipping and mixed precision belong to the settings: the DeepSpeed configuration
    leaves them out, or says `"auto"`, or the same. bf16 is torch's autocast over fp32 weights, so
    a module returns `.float()` where its loss begins. Keep frozen parts outside of the module:
    inside they cost time at every step.

    Args:
        module: the trainable module; moved to this process's device.
        settings: of the run; `deepspeed_config` may hold a file's content.
        make_optimizer: called with the trainable parameters, `lr`, `betas` and `weight_decay`.

    Raises:
        ValueError: for a configuration or a module that DeepSpeed would accept and train wrongly.
        FileNotFoundError: for a configuration file that does not exist.
    """
    import deepspeed

    config = deepspeed_config(settings)
    micro_batch = settings.train_batch_size * settings.gradient_accumulation_steps
    settle_config(
        config,
        {
            "train_micro_batch_size_per_gpu": settings.train_batch_size,
            "gradient_accumulation_steps": settings.gradient_accumulation_steps,
            "train_batch_size": micro_batch * torch.distributed.get_world_size(),
            "gradient_clipping": settings.max_grad_norm,
        },
        mixed_precision=settings.mixed_precision,
    )
    trainable = _trainable_parameters(module)
    optimizer = make_optimizer(
        trainable.values(),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.adam_weight_decay,
    )
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer,
        lr_scheduler=_schedule(optimizer, settings),
        model_parameters=list(trainable.values()),
        config=config,
    )
    return engine


def deepspeed_config(settings: RunSettings) -> dict[str, Any]:
    """Reads and checks the DeepSpeed configuration of a run: ZeRO stage 0 if none is given."""
    config = settings.deepspeed_config or {"zero_optimization": {"stage": 0}}
    return read_config(config, has_cuda=torch.cuda.is_available())


def full_state_dict(engine: Any) -> dict[str, Tensor]:
    """Gathers the trainable parameters in fp32 on CPU, the same on all processes at any ZeRO stage;
    every process must call it.
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
    """Stops a run whose loss is not a number."""
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


def _schedule(optimizer: torch.optim.Optimizer, settings: RunSettings) -> Any:
    from diffusers import optimization
    from transformers import get_inverse_sqrt_schedule

    name, names = settings.lr_scheduler, typing.get_args(LrScheduler)
    num_warmup, num_steps = settings.lr_warmup_steps, settings.max_train_steps
    if name not in names:
        raise ValueError(f"unknown lr_scheduler '{name}'; there are {', '.join(names)}")
    if name == "inverse_sqrt":  # falls as 1 / sqrt(step) from the warm-up's end
        return get_inverse_sqrt_schedule(optimizer, num_warmup)
    if name == "polynomial":
        # a warm-up as long as the run would divide by the no steps that are left after it
        return optimization.get_polynomial_decay_schedule_with_warmup(
            optimizer, num_warmup, max(num_steps, num_warmup + 1), lr_end=settings.lr_end
        )
    return optimization.get_scheduler(
        name, optimizer, num_warmup_steps=num_warmup, num_training_steps=num_steps
    )
