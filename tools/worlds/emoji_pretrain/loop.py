"""The training loop of the emoji world's parts: one process, seeded, resumable.

A step's randomness is a function of (seed, step), so a run that is stopped and started again
continues as if nothing had happened. The rate is constant before its decay, so that `num_steps` may
be changed between starts.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

LossOfStep = Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Recipe:
    """How one part is trained.

    Attributes:
        name: of its checkpoint and curve.
        num_steps: in all.
        learning_rate: peak learning rate of AdamW.
        warmup_steps: of linear warm-up.
        decay_share: the share of the steps at the end over which the rate falls to zero as
            1 - sqrt(progress) (arXiv 2405.18392, section 4.1).
        ema_decay: of the moving average that is kept.
        seed: of all draws.
    """

    name: str
    num_steps: int
    learning_rate: float
    warmup_steps: int = 100
    decay_share: float = 0.3
    ema_decay: float = 0.998
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        start = self.num_steps * (1 - self.decay_share)
        if step < start:
            return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps)
        progress = (step - start) / max(1.0, self.num_steps - start)
        return self.learning_rate * (1 - progress**0.5)


def train(
    recipe: Recipe,
    module: nn.Module,
    loss_of_step: LossOfStep,
    work: Path,
    save_every_s: float = 120,
) -> None:
    """Trains `module` in place and leaves its moving average in it.

    Args:
        recipe: steps, rates and seed.
        module: everything that trains.
        loss_of_step: `generator -> (loss, parts)` for a step's batch.
        work: the folder of checkpoints (`NAME.pt`) and curves (`NAME.jsonl`).
        save_every_s: seconds between checkpoints.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01, betas=(0.9, 0.99))
    ema = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
    first = 0
    if (checkpoint := work / f"{recipe.name}.pt").exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        first = state["step"]
    print(f"{recipe.name}: starts at step {first} of {recipe.num_steps}", flush=True)
    saved = shown = started = time.monotonic()
    used = time.process_time()
    for step in range(first, recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        loss, parts = loss_of_step(generator)
        if not torch.isfinite(loss):
            raise RuntimeError(f"{recipe.name}: the loss of step {step} is not finite: {parts}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ema.step(parameters)
        now, done, last = time.monotonic(), step + 1 - first, step + 1 == recipe.num_steps
        if now - shown > 20 or last:
            shown = now
            row = {"step": step + 1, "loss": loss.item(), **{k: float(v) for k, v in parts.items()}}
            row["s_per_step"] = (now - started) / done
            row["cpu_s_per_step"] = (time.process_time() - used) / done
            row["left_min"] = row["s_per_step"] * (recipe.num_steps - step - 1) / 60
            line = json.dumps({k: float(f"{v:.4g}") for k, v in row.items()})
            with (work / f"{recipe.name}.jsonl").open("a") as file:
                file.write(line + "\n")
            print(f"{recipe.name}: {line}", flush=True)
        if now - saved > save_every_s or last:
            saved = now
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            temporary = checkpoint.with_suffix(".tmp")
            torch.save({**state, "ema": ema.state_dict(), "step": step + 1}, temporary)
            os.replace(temporary, checkpoint)
    ema.copy_to(parameters)


def average_of(checkpoint: Path, module: nn.Module) -> int:
    """Loads the moving average of a checkpoint into `module` and returns its step."""
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} is missing: train that part first")
    state = torch.load(checkpoint, weights_only=True)
    module.load_state_dict(state["module"])
    parameters = [p for p in module.parameters() if p.requires_grad]
    ema = EMAModel(parameters)
    ema.load_state_dict(state["ema"])
    ema.copy_to(parameters)
    return int(state["step"])
