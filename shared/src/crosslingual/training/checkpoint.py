"""Checkpoints, each complete or absent: written under a temporary name, renamed, and only then
named by `latest`.

    OUTPUT/latest                           one line: checkpoint-200
    OUTPUT/checkpoint-200/checkpoint.json   step, ZeRO stage, processes, shapes, file sizes
    OUTPUT/checkpoint-200/settings.yaml     the run's settings
    OUTPUT/checkpoint-200/deepspeed/*.pt    DeepSpeed's: trainable tensors, optimiser, state

DeepSpeed's files are pickles: the local state of one's own run, never a format to exchange. Exports
are safetensors (`crosslingual.adapter.artifact`). All processes see `OUTPUT`.
"""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from crosslingual.cli.settings import write_settings
from crosslingual.files import flush, is_full_disk, replacing, write_text
from crosslingual.training.manifest import MANIFEST, check_fits, read_manifest, write_manifest

_TAG = "deepspeed"
_last: WeakKeyDictionary[Any, Path] = WeakKeyDictionary()
"""The checkpoint that an engine was last saved to or loaded from."""


def save_checkpoint(
    engine: Any,
    output_dir: str | Path,
    *,
    step: int,
    state: dict[str, Any],
    total_limit: int | None,
    settings: Any = None,
) -> Path:
    """Saves trainable tensors, optimiser, schedule and state; every process must call it.

    Whenever a process dies, `latest` names a complete checkpoint. The oldest checkpoints are
    removed afterwards. A second call at the same step writes nothing.

    Args:
        engine: what `build_engine` returned.
        output_dir: the run's folder, seen by all processes; made if it is absent.
        step: optimiser steps taken so far.
        state: anything that pickles, the same on all processes (rank 0's is kept).
        total_limit: how many checkpoints up to this one stay; None keeps all.
        settings: the run's, kept as `settings.yaml`.

    Raises:
        OSError: if the disk is full; earlier checkpoints are intact.
    """
    output_dir = Path(output_dir).resolve()
    final = output_dir / f"checkpoint-{step}"
    partial = output_dir / f"checkpoint-{step}.partial"
    is_first = torch.distributed.get_rank() == 0
    if _last.get(engine) == final:
        return final
    try:
        if is_first:
            output_dir.mkdir(parents=True, exist_ok=True)
            for leftover in output_dir.glob("checkpoint-*.partial"):
                shutil.rmtree(leftover)
            for leftover in output_dir.glob(".latest.*"):
                leftover.unlink()
        torch.distributed.barrier()
        engine.save_checkpoint(
            str(partial),
            tag=_TAG,
            client_state={"crosslingual": {**state, "step": step}},
            save_latest=False,
            exclude_frozen_parameters=True,
        )
        torch.distributed.barrier()
        if is_first:
            if settings is not None:
                write_settings(settings, partial / "settings.yaml")
            write_manifest(engine, partial, step)
            _publish(partial, final, _last.get(engine))
    except (OSError, RuntimeError) as error:
        if not is_full_disk(error):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        latest = _latest_name(output_dir)
        kept = f"{output_dir / latest} is intact" if latest else "none was saved before"
        message = f"the disk is full: {final} was not saved, {kept}; make room and resume"
        raise OSError(errno.ENOSPC, message) from error
    if is_first and total_limit is not None:
        _remove_oldest(output_dir, step, total_limit)
    torch.distributed.barrier()
    _last[engine] = final
    return final


def load_checkpoint(engine: Any, path: str | Path) -> dict[str, Any]:
    """Restores an engine from a `checkpoint-N` folder of the same module, ZeRO stage and, at stages
    1-3, number of processes; returns the state that was saved, with `step`. Every process must call
    it.

    Raises:
        ValueError: for a foreign, truncated or unfitting checkpoint, saying which.
        FileNotFoundError: for a folder that does not exist.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint {path}; give a checkpoint-N folder or 'latest'")
    check_fits(engine, read_manifest(path), path)
    folder, client_state = engine.load_checkpoint(str(path), tag=_TAG, load_module_strict=False)
    if folder is None:
        raise ValueError(f"DeepSpeed found nothing to load in {path}; resume from another one")
    _last[engine] = path
    return client_state["crosslingual"]


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a folder is, or the latest one of the run that it is.

    Raises:
        FileNotFoundError: for a folder that is neither.
    """
    path = Path(path).resolve()
    if (path / MANIFEST).is_file():
        return path
    latest = _latest_name(path)
    if latest is None:
        raise FileNotFoundError(f"no checkpoint in {path}; give a checkpoint-N or a run's folder")
    return path / latest


def settings_file(checkpoint: Path) -> Path:
    """The settings that a checkpoint's run was started with: a YAML file that may be missing.

    Checkpoints of earlier versions do not hold it; their run's folder does.
    """
    inside = checkpoint / "settings.yaml"
    return inside if inside.is_file() else checkpoint.parent / "settings.yaml"


def trained_state(path: str | Path) -> dict[str, Tensor]:
    """The trained tensors of `find_checkpoint(path)` by name, in fp32 on CPU, or their moving
    average where the run kept one; read without model, engine or other processes.

    Raises:
        FileNotFoundError: for a folder without checkpoints.
        ValueError: for a foreign or truncated checkpoint.
    """
    checkpoint = find_checkpoint(path)
    manifest = read_manifest(checkpoint)
    names, folder = list(manifest["trainable"]), checkpoint / _TAG
    # every stage's first file holds the state that was saved; stage 0's the tensors, too
    [file, *_] = sorted(folder.glob("*model_states.pt"))
    content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    average = content["crosslingual"].get("ema")
    if average is not None:
        state = dict(zip(names, average["shadow_params"], strict=True))
    elif manifest["zero_stage"] == 0:
        state = content["module"]
    else:
        state = _merged_shards(checkpoint)
    return {
        name: state[name].to(torch.float32, copy=True).reshape(manifest["trainable"][name])
        for name in names
    }


def resolve_checkpoint(output_dir: str | Path, resume_from_checkpoint: str | None) -> Path | None:
    """Finds the checkpoint to resume from, and keeps a new run out of an old run's folder.

    Args:
        output_dir: the run's folder.
        resume_from_checkpoint: `latest`, the path of a checkpoint, or None for a new run.

    Raises:
        FileNotFoundError: where there is no such checkpoint.
        ValueError: for a new run, or one resumed from elsewhere, in a folder with checkpoints.
    """
    output_dir = Path(output_dir).resolve()
    latest = _latest_name(output_dir)
    if resume_from_checkpoint == "latest":
        if latest is None:
            raise FileNotFoundError(
                f"no checkpoint in {output_dir}; leave out --resume_from_checkpoint to start anew"
            )
        path = output_dir / latest
    else:
        path = None if resume_from_checkpoint is None else Path(resume_from_checkpoint).resolve()
    if path is not None and not path.is_dir():
        raise FileNotFoundError(f"no checkpoint {path}; give a checkpoint-N folder or 'latest'")
    if latest is not None and (path is None or path.parent != output_dir):
        raise ValueError(
            f"{output_dir} holds {latest} of another run; add --resume_from_checkpoint latest to "
            "go on with it, or choose another --output_dir"
        )
    return path


def _merged_shards(checkpoint: Path) -> dict[str, Tensor]:
    """The fp32 tensors that the processes of ZeRO 1-3 saved in parts."""
    # DeepSpeed asks torch to unpickle anything: the variable overrules it
    environment = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    if not torch.cuda.is_available():
        environment["DS_ACCELERATOR"] = "cpu"
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(None):
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils import zero_to_fp32
        from deepspeed.utils.tensor_fragment import fragment_address

        with (
            torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]),
            mock.patch.object(zero_to_fp32, "tqdm", lambda files, **_: files),
        ):
            return zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), _TAG)


def _latest_name(output_dir: Path) -> str | None:
    path = output_dir / "latest"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _publish(partial: Path, final: Path, last: Path | None) -> None:
    """Flushes a complete folder, gives it its name, then lets `latest` name it.

    A folder that has this name already was left by a longer run than the one that resumed from
    `last`, its neighbour.
    """
    flush(*partial.rglob("*"), partial)
    latest = final.parent / "latest"
    if final.exists():
        if last is not None and _latest_name(final.parent) == final.name:
            write_text(latest, last.name + "\n")
        shutil.rmtree(final)
    with replacing(latest) as temporary:  # a full disk must refuse this one before the rename
        temporary.write_text(final.name + "\n", encoding="utf-8")
        flush(temporary)
        partial.rename(final)
        flush(final.parent)
    flush(final.parent)


def _remove_oldest(output_dir: Path, step: int, total_limit: int) -> None:
    found = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output_dir.iterdir())
    steps = sorted(int(match[1]) for match in found if match and int(match[1]) <= step)
    for old in steps[: -max(total_limit, 1)]:
        path = output_dir / f"checkpoint-{old}"
        shutil.rmtree(path.rename(path.with_name(path.name + ".partial")))
