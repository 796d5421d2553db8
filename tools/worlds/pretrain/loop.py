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
    """How one part is trained: steps, peak learning rate, the decay of its moving average, and
    whether AdamW runs as one kernel.
    """

    name: str
    num_steps: int
    learning_rate: float
    warmup_steps: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    seed: int = 0
    fused: bool | None = None


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


def learning_rate_at(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to a fiftieth of the peak."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.num_steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _average_gradients(parameters: list[nn.Parameter], world_size: int) -> None:
    if world_size == 1:
        return
    for p in parameters:
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= world_size


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
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.99),
        fused=recipe.fused,
    )
    ema = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = work / f"{recipe.name}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        first = state["step"]
        print(f"{recipe.name}: continues at step {first}", flush=True)
    started = saved = shown = time.monotonic()
    for step in range(first, recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(recipe, step)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step * 64 + rank)
        loss, parts = loss_of_step(generator, step)
        if not torch.isfinite(loss):
            raise RuntimeError(f"{recipe.name}: the loss of step {step} is not finite: {parts}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(parameters, world_size)
        nn.utils.clip_grad_norm_(parameters, 1.0)
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
                "optimizer": optimizer.state_dict(),
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
