"""The training loop that the pretraining scripts share: seeded, resumable, over one or two
processes.

A step's randomness is a function of (seed, step, rank), so a run that is stopped and started again
continues as if nothing had happened. Start it plainly, or with `torchrun --standalone
--nproc_per_node 2`.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from crosslingual.training.processes import start_processes

LossOfStep = Callable[[torch.Generator, int], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Recipe:
    """How one part is trained: steps, AdamW's peak learning rate, the decay of the moving average,
    whether AdamW runs as one kernel, and, where Muon trains the weights of linear layers in its
    place, Muon's peak rate.
    """

    name: str
    num_steps: int
    learning_rate: float
    warmup_steps: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    seed: int = 0
    fused: bool | None = None
    muon_learning_rate: float | None = None


def start(description: str, **numbers: int) -> tuple[argparse.Namespace, int]:
    """Reads a script's command line, joins its processes and seeds torch.

    Args:
        description: the script's docstring.
        numbers: its settings besides `--work`, with their defaults.

    Returns:
        The settings and this process's rank.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    return options, start_processes().rank


def share_of_peak(recipe: Recipe, step: int) -> float:
    """The share of the peak rate at a step: a linear warm-up, then a cosine to a fiftieth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.num_steps - recipe.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizers(recipe: Recipe, module: nn.Module) -> dict[torch.optim.Optimizer, float]:
    """Optimisers with their peak rates: AdamW for what trains in a module, or Muon (Jordan et al.
    2024; the scale of arXiv 2502.16982, section 2.2) for the weights of its linear layers, and
    AdamW for the rest.
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    rate = recipe.muon_learning_rate
    others = {id(weight) for weight in weights} if rate is not None else set()
    parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    decay = recipe.weight_decay
    adamw = torch.optim.AdamW(parameters, betas=(0.9, 0.99), weight_decay=decay, fused=recipe.fused)
    made: dict[torch.optim.Optimizer, float] = {adamw: recipe.learning_rate}
    if rate is not None:
        muon = torch.optim.Muon(weights, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        made[muon] = rate
    return made


def _average_gradients(parameters: list[nn.Parameter], world_size: int) -> None:
    if world_size == 1:
        return
    for p in parameters:
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= world_size


def _resume(
    checkpoint: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer], ema: EMAModel
) -> int:
    """Loads a checkpoint and returns its step."""
    state = torch.load(checkpoint, weights_only=True)
    if "optimizers" not in state:
        raise ValueError(f"{checkpoint} is of an earlier version: remove it to begin again")
    module.load_state_dict(state["module"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    ema.load_state_dict(state["ema"])
    return int(state["step"])


def train(
    recipe: Recipe,
    module: nn.Module,
    loss_of_step: LossOfStep,
    work: Path,
    save_every_s: float = 120.0,
    look: Callable[[int], None] | None = None,
    look_every: int = 1000,
) -> None:
    """Trains `module` in place and leaves its moving average in it.

    Args:
        recipe: steps, rates and seed.
        module: everything that trains.
        loss_of_step: `(generator, step) -> (loss, parts)` for this rank's batch.
        work: the folder of checkpoints (`NAME.pt`) and curves (`NAME.jsonl`).
        save_every_s: seconds between checkpoints.
        look: called on rank 0 every `look_every` steps with the moving average in place.
        look_every: steps between looks.

    Raises:
        ValueError: the checkpoint is of an earlier version.
        RuntimeError: a loss is not finite.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizers = make_optimizers(recipe, module)
    ema = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = work / f"{recipe.name}.pt"
    first = 0
    if checkpoint.exists():
        first = _resume(checkpoint, module, [*optimizers], ema)
        print(f"{recipe.name}: continues at step {first}", flush=True)
    started = saved = shown = time.monotonic()
    for step in range(first, recipe.num_steps):
        for optimizer, rate in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * share_of_peak(recipe, step)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step * 64 + rank)
        loss, parts = loss_of_step(generator, step)
        if not torch.isfinite(loss):
            raise RuntimeError(f"{recipe.name}: the loss of step {step} is not finite: {parts}")
        module.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(parameters, world_size)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        ema.step(parameters)
        now = time.monotonic()
        if rank == 0 and (now - shown > 15 or step + 1 == recipe.num_steps):
            shown = now
            row = {
                "step": step + 1,
                "loss": round(loss.item(), 5),
                **{k: round(float(v), 5) for k, v in parts.items()},
            }
            row["s_per_step"] = round((now - started) / (step + 1 - first), 3)
            row["eta_min"] = round(row["s_per_step"] * (recipe.num_steps - step - 1) / 60, 1)
            with (work / f"{recipe.name}.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{recipe.name}: {row}", flush=True)
        if rank == 0 and (now - saved > save_every_s or step + 1 == recipe.num_steps):
            saved = now
            state = {
                "module": module.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "ema": ema.state_dict(),
            }
            temporary = checkpoint.with_suffix(".tmp")
            torch.save({**state, "step": step + 1}, temporary)
            os.replace(temporary, checkpoint)
        if look is not None and (step + 1) % look_every == 0:
            ema.store(parameters)
            ema.copy_to(parameters)
            if rank == 0:
                look(step + 1)
            ema.restore(parameters)
    ema.copy_to(parameters)


def average_of(checkpoint: Path, module: nn.Module) -> int:
    """Loads the moving average of a checkpoint into `module` and returns its step."""
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} is missing: run that part's pretraining first")
    state = torch.load(checkpoint, weights_only=True)
    module.load_state_dict(state["module"])
    parameters = [p for p in module.parameters() if p.requires_grad]
    ema = EMAModel(parameters)
    ema.load_state_dict(state["ema"])
    ema.copy_to(parameters)
    return int(state["step"])
