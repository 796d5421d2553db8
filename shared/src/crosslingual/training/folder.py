"""A run's folder: one writer at a time, and only with the settings that it was started with."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from crosslingual.files import check_fields, hold_folder
from crosslingual.training.checkpoint import settings_file
from crosslingual.training.manifest import read_manifest
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import RunSettings


def on_first_rank(ranks: Ranks, act: Callable[[], Any]) -> Any:
    """What `act` returns on rank 0, None on the others; every process must call it.

    Raises:
        ValueError: on all of them, what `act` raised on rank 0.
    """
    refusal, result = [None], None
    if ranks.rank == 0:
        try:
            result = act()
        except (ValueError, FileNotFoundError) as error:
            refusal = [str(error)]
    if ranks.world_size > 1:
        torch.distributed.broadcast_object_list(refusal, src=0)
    if refusal[0] is not None:
        raise ValueError(refusal[0])
    return result


def lock_folder(folder: Path, ranks: Ranks, *, flag: str = "--output_dir") -> contextlib.ExitStack:
    """Locks a folder, which `flag` names, for all processes of a run, by rank 0; every process must
    call it.

    Returns:
        What releases the lock when it is closed; the kernel does when the process ends.
    """
    try:
        lock = on_first_rank(ranks, lambda: hold_folder(folder))
    except ValueError as error:
        raise ValueError(str(error).replace("--output_dir", flag)) from error
    return lock or contextlib.ExitStack()


def check_resumable(settings: RunSettings, checkpoint: Path, ranks: Ranks) -> int:
    """Refuses to resume with settings that would train something else, and prints those that may
    change and did.

    Samples per optimiser step must stay the same; how processes and micro-steps share them
    (`settings.SHARES`) may change. What else may change is `settings.MAY_CHANGE`; data may have
    moved.

    Returns:
        The checkpoint's step.
    """
    manifest = read_manifest(checkpoint)
    step: int = manifest["step"]
    if settings.max_train_steps < step:
        raise ValueError(
            f"--max_train_steps is {settings.max_train_steps} and {checkpoint} has taken {step}: "
            "give at least as many"
        )
    before = _settings_before(checkpoint)
    now = yaml.safe_load(yaml.safe_dump(asdict(settings)))
    for former, name in settings.FORMER_NAMES.items():
        if former in before:
            before[name] = before.pop(former)
    for setting in fields(settings):  # one that the checkpoint's version did not have yet
        if setting.name not in before and setting.default is not MISSING:
            before[setting.name] = setting.default
    changes = {
        name: f"{name} was {before[name]} and is {now[name]}"
        for name in now
        if name in before and not _is_same(name, before[name], now[name])
    }
    may_change = settings.MAY_CHANGE | settings.SHARES
    refused = [change for name, change in changes.items() if name not in may_change]
    if _SHARES <= before.keys():
        were, are = _samples(before, manifest["world_size"]), _samples(now, ranks.world_size)
        if were != are:
            refused.append(
                f"a step had {were} samples (train_batch_size x gradient_accumulation_steps x "
                f"processes) and has {are}"
            )
    if refused:
        raise ValueError(
            f"{checkpoint} was trained with other settings: {'; '.join(refused)}. Give the former "
            "ones to resume it, or start a new run in another --output_dir"
        )
    said = [change for name, change in changes.items() if name not in _PLACES]
    if said and ranks.rank == 0:
        print(f"resuming {checkpoint} with changed settings: {'; '.join(said)}")
    return step


_SHARES = frozenset(("train_batch_size", "gradient_accumulation_steps"))
_PLACES = ("output_dir", "resume_from_checkpoint")


def _settings_before(checkpoint: Path) -> dict[str, Any]:
    """The settings of the checkpoint's run; empty where an earlier version kept none."""
    file = settings_file(checkpoint)
    if not file.is_file():
        return {}
    remedy = "resume from another checkpoint"
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{file} is broken ({reason}); {remedy}") from error
    fields = dict.fromkeys(_SHARES.intersection(before), int) if isinstance(before, dict) else {}
    return check_fields(before, fields, file, remedy)


def _samples(settings: Mapping[str, Any], world_size: int) -> int:
    return settings["train_batch_size"] * settings["gradient_accumulation_steps"] * world_size


def _is_same(name: str, before: Any, now: Any) -> bool:
    """Whether two values say the same, paths by the place that they lead to."""
    if before == now:
        return True
    if not isinstance(before, str | list) or not isinstance(now, str | list):
        return False
    old, new = ([value] if isinstance(value, str) else value for value in (before, now))
    if not all(isinstance(value, str) for value in [*old, *new]):
        return False
    has_moved = name == "train_data" and not any(map(os.path.exists, old))
    return has_moved or list(map(os.path.realpath, old)) == list(map(os.path.realpath, new))
