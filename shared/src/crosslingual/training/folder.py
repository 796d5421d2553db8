"""A run's folder: one writer at a time, and only with the settings that it was started with."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from crosslingual.training.checkpoint import settings_file
from crosslingual.training.manifest import read_manifest
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import RunSettings


def lock_folder(folder: Path, ranks: Ranks) -> Any:
    """Locks a folder on rank 0 until this process ends; every process must call it.

    The kernel releases a record lock when the process ends, however it ends. Worker processes that
    outlive it do not inherit a record lock, as they would inherit one of `flock`.

    Returns:
        The file that holds the lock, to close; None on the other ranks.

    Raises:
        ValueError: another process writes into the folder.
    """
    refusal, file = [None], None
    if ranks.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "run.lock").open("a+", encoding="utf-8")
        refusal = [_try_lock(file, folder)]
    if ranks.world_size > 1:
        torch.distributed.broadcast_object_list(refusal, src=0)
    if refusal[0] is not None:
        raise ValueError(f"{refusal[0]}; wait for it, or choose another --output_dir")
    return file


def _try_lock(file: Any, folder: Path) -> str | None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            file.seek(0)
            return f"{folder} is being written by {file.read().strip()}"
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            print(f"{folder} is on a disk without locks: start one run in it", file=sys.stderr)
            return None
        raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return None


def check_resumable(settings: RunSettings, checkpoint: Path, ranks: Ranks) -> int:
    """Refuses to resume with settings that would train something else.

    Samples per optimiser step must stay the same; how processes and micro-steps share them may
    change. What else may change is `settings.MAY_CHANGE`; data may have moved.

    Returns:
        The checkpoint's step.

    Raises:
        ValueError: naming the settings that differ, or for fewer steps than were taken.
    """
    manifest = read_manifest(checkpoint)
    step: int = manifest["step"]
    if settings.max_train_steps < step:
        raise ValueError(
            f"--max_train_steps is {settings.max_train_steps} and {checkpoint} has taken {step}: "
            "give at least as many"
        )
    file = settings_file(checkpoint)
    before = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    now = yaml.safe_load(yaml.safe_dump(asdict(settings)))
    for former, name in settings.FORMER_NAMES.items():
        if former in before:
            before[name] = before.pop(former)
    changes = [
        f"{name} was {before[name]} and is {now[name]}"
        for name in now
        if name in before and name not in settings.MAY_CHANGE | _SHARES
        if not _is_same(name, before[name], now[name])
    ]
    if _SHARES <= before.keys():
        were, are = _samples(before, manifest["world_size"]), _samples(now, ranks.world_size)
        if were != are:
            changes.append(
                f"a step had {were} samples (train_batch_size x gradient_accumulation_steps x "
                f"processes) and has {are}"
            )
    if changes:
        raise ValueError(
            f"{checkpoint} was trained with other settings: {'; '.join(changes)}. Give the former "
            "ones to resume it, or start a new run in another --output_dir"
        )
    return step


_SHARES = frozenset(("train_batch_size", "gradient_accumulation_steps"))


def _samples(settings: Mapping[str, Any], world_size: int) -> int:
    return settings["train_batch_size"] * settings["gradient_accumulation_steps"] * world_size


def _is_same(name: str, before: Any, now: Any) -> bool:
    """Whether two values say the same, paths by the place that they lead to."""
    if before == now:
        return True
    if not isinstance(before, str | list) or not isinstance(now, str | list):
        return False
    old, new = ([value] if isinstance(value, str) else value for value in (before, now))
    has_moved = name == "train_data" and not any(map(os.path.exists, old))
    return has_moved or list(map(os.path.realpath, old)) == list(map(os.path.realpath, new))
