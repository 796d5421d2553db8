"""A tiny training run through the real engine, for the tests.

    python tiny_run.py serve           requests as JSON lines on stdin, answers on stdout
    torchrun ... tiny_run.py REQUEST   one request, in the processes of a launcher

Importing torch and DeepSpeed takes seconds, so a server imports them once and forks each run.
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import diffusers.optimization  # noqa: F401, imported once for all the forks
import torch
from torch import Tensor, nn

from crosslingual.adapter.artifact import save_artifact
from crosslingual.cli.verbs import run_command
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite, full_state_dict
from crosslingual.training.processes import (
    Ranks,
    StopRequest,
    leave_processes,
    start_processes,
)
from crosslingual.training.run import Run
from crosslingual.training.settings import RunSettings
from crosslingual_worlds.testing.fork_server import DeathClock, serve

DEFAULTS = {
    "output_dir": "",
    "config": {},
    "steps": 6,
    "stop_at": None,  # leave after this step, having saved nothing for it
    "save_every": 2,
    "total_limit": 2,
    "resume": None,
    "dropout": 0.0,
    "width": 8,
    "accumulate": 1,
    "precision": "no",
    "max_grad_norm": 1.0,
    "terminate": None,  # [rank, step]: this rank gets a SIGTERM during this step
    "nan_at": None,
    "die": None,  # [step, operation, rank]: kill -9 of it at this file operation of that save
    "world_size": 1,
}


class Tiny(nn.Module):
    """Two layers with dropout, a frozen one between them, and a scale of shape (1,)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(4, width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.outer = nn.Linear(width, 4)
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.dropout(torch.tanh(self.inner(x)))
        return ((self.scale * self.outer(self.frozen(hidden))).float() - y).square().mean()


def batch_of(step: int, micro: int, ranks: Ranks, num_micro: int) -> tuple[Tensor, Tensor]:
    """Rows of one global batch of 8, whatever the number of processes and micro-steps."""
    generator = torch.Generator().manual_seed(1000 + step)
    rows = torch.randn(8, 8, generator=generator)
    share = rows.chunk(ranks.world_size * num_micro)[micro * ranks.world_size + ranks.rank]
    return share[:, :4], share[:, 4:]


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Trains as a method's loop does, and returns the losses of this rank and the weights."""
    ask = {**DEFAULTS, **request}
    ranks = start_processes()
    torch.manual_seed(0)
    output_dir, num_micro = ask["output_dir"], ask["accumulate"]
    checkpoint = resolve_checkpoint(output_dir, ask["resume"])
    settings = RunSettings(
        learning_rate=0.05,
        adam_weight_decay=0.1,
        lr_warmup_steps=2,
        lr_end=1e-3,
        max_train_steps=ask["steps"],
        max_grad_norm=ask["max_grad_norm"],
        train_batch_size=8 // ranks.world_size // num_micro,
        gradient_accumulation_steps=num_micro,
        mixed_precision=ask["precision"],
        deepspeed_config=ask["config"],
    )
    engine = build_engine(Tiny(ask["width"], ask["dropout"]), settings)
    loaded = load_checkpoint(engine, checkpoint) if checkpoint else {"step": 0, "note": None}
    start, note = loaded["step"], loaded["note"]
    dies_here = ask["die"] is not None and ask["die"][2] == ranks.rank
    clock = DeathClock(output_dir, ask["die"][1] if dies_here else None)
    losses, rates, step = [], [], start
    with contextlib.closing(StopRequest()) as stop:
        for step in range(start + 1, (ask["stop_at"] or ask["steps"]) + 1):
            if ask["terminate"] == [ranks.rank, step]:
                os.kill(os.getpid(), signal.SIGTERM)
            torch.manual_seed(step * 100 + ranks.rank)
            for micro in range(num_micro):
                x, y = batch_of(step, micro, ranks, num_micro)
                loss = engine(x, y * float("nan") if ask["nan_at"] == step else y)
                check_finite(loss, {"mse": loss}, step=step, keys=["left", "right"])
                engine.backward(loss)
                engine.step()
                losses.append(loss.item())
            rates.append(engine.get_lr()[0])
            is_asked = stop.requested(ranks)
            if step % ask["save_every"] == 0 or is_asked:
                clock.is_on = ask["die"] is None or ask["die"][0] == step
                clock.count = 0
                state = {"note": f"step {step}"}
                save_checkpoint(
                    engine, output_dir, step=step, state=state, total_limit=ask["total_limit"]
                )
                clock.is_on = False
            if is_asked:
                break
    weights = {name: t.tolist() for name, t in full_state_dict(engine).items()}
    return {
        "losses": losses,
        "rates": rates,
        "step": step,
        "weights": weights,
        "note": note,
        "operations": clock.count,
        "has_inductor": "torch._inductor.compile_fx" in sys.modules,
    }


@dataclass
class TinySettings(RunSettings):
    """Settings of `train_with_run`.

    Attributes:
        dropout: share of hidden units that are dropped.
        nan_at: [rank, step] whose loss is not a number.
        terminate: [rank, step] that gets a SIGTERM.
    """

    MAY_CHANGE: ClassVar[frozenset[str]] = RunSettings.MAY_CHANGE | {"nan_at", "terminate"}

    train_batch_size: int = 4
    max_train_steps: int = 6
    learning_rate: float = 0.05
    lr_warmup_steps: int = 2
    checkpointing_steps: int = 2
    dropout: float = 0.3
    nan_at: list[int] = field(default_factory=list)
    terminate: list[int] = field(default_factory=list)


def train_with_run(request: dict[str, Any]) -> dict[str, Any]:
    """Trains by `Run`; returns this rank's losses, what was exported and where."""
    settings = TinySettings(**request["settings"])
    run = Run(settings)
    torch.manual_seed(settings.seed)
    model = run.prepare(Tiny(8, settings.dropout))
    losses, exported = [], {}
    for step in run.steps():
        if settings.terminate == [run.ranks.rank, step]:
            os.kill(os.getpid(), signal.SIGTERM)
        for draws in run.micro_steps(step):
            rows = torch.stack([torch.randn(8, generator=generator) for generator in draws])
            torch.manual_seed(draws.place)
            loss = model(rows[:, :4], rows[:, 4:])
            if settings.nan_at == [run.ranks.rank, step]:
                loss = loss * float("nan")
            losses.append(loss.item())
            names = [f"{run.ranks.rank}-{draws.micro_step}"]
            run.backward(loss, {"mse": loss.detach()}, keys=lambda names=names: names)
        run.end_step()
        if run.validates(step):
            run.log({"validated": step}, step)

    def write(state: dict[str, Tensor]) -> Path:
        exported.update({name: tensor.tolist() for name, tensor in state.items()})
        config = {"method": "tiny", "base": "none", "languages": ["de"]}
        return save_artifact(run.output_dir / "export", state=state, config=config, card="# Tiny")

    return {"losses": losses, "path": str(run.finish(write)), "exported": exported}


def run(request: dict[str, Any], rank: int) -> int:
    """One process of a run, as a command: the answer goes to a file, errors to stderr."""

    def command() -> None:
        answer = train_with_run(request) if "settings" in request else train(request)
        Path(request["answers"], str(rank)).write_text(json.dumps(answer))

    return run_command(command)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(run)
    else:
        leave_processes(run(json.loads(sys.argv[1]), int(os.environ.get("RANK", "0"))))
