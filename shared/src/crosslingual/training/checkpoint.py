"""Checkpoints, each complete or absent: written under a temporary name, renamed, and only then
named by `latest`.

    OUTPUT/latest                           one line: checkpoint-200
    OUTPUT/checkpoint-200/checkpoint.json   step, ZeRO stage, processes, shapes, files' SHA-256
    OUTPUT/checkpoint-200/settings.yaml     the run's settings
    OUTPUT/checkpoint-200/deepspeed/*.pt    DeepSpeed's: trainable tensors, optimiser, state

DeepSpeed's files are pickles. They are read with torch's `weights_only`: tensors and plain values,
and none of the code that a pickle may name. Exports are safetensors
(`crosslingual.adapter.artifact`). All processes see `OUTPUT`.
"""

import contextlib
import errno
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import torch
import yaml
from torch import Tensor

from crosslingual.cli.settings import write_settings
from crosslingual.files import MARK, flush, is_full_disk, temporary_sibling
from crosslingual.training.manifest import MANIFEST, check_fits, read_manifest, write_manifest

_TAG = "deepspeed"
_TEMPORARY = re.compile(r"\.checkpoint-\d+\.[0-9a-f]{16}")
_MARK = '{"format_version": 1, "kind": "checkpoint"}\n'
_FOREIGN = (pickle.UnpicklingError, RuntimeError, LookupError, AttributeError, TypeError, EOFError)
"""What reading a file raises that holds other things than a checkpoint's."""

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
        state: tensors and plain values, the same on all processes (rank 0's is kept).
        total_limit: how many checkpoints up to this one stay; None keeps all.
        settings: the run's, kept as `settings.yaml`.

    Raises:
        OSError: if the disk is full; earlier checkpoints are intact.
    """
    output_dir = Path(output_dir).resolve()
    final = output_dir / f"checkpoint-{step}"
    is_first = torch.distributed.get_rank() == 0
    if _last.get(engine) == final:
        return final
    names = [temporary_sibling(final).name]
    torch.distributed.broadcast_object_list(names, src=0)
    partial = output_dir / names[0]
    try:
        if is_first:
            output_dir.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(output_dir)
            partial.mkdir()
            (partial / MARK).write_text(_MARK, encoding="utf-8")
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
        latest = _named_latest(output_dir)
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
    with _weights_only(path):
        loaded, state = engine.load_checkpoint(str(path), tag=_TAG, load_module_strict=False)
        if loaded is None:
            raise ValueError(f"DeepSpeed found nothing to load in {path}; resume from another one")
        _last[engine] = path
        return state["crosslingual"]


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a folder is, or the latest one of the run that it is.

    Raises:
        FileNotFoundError: for a folder that is neither.
        ValueError: for a run whose `latest` is broken, or a checkpoint that is not as written.
    """
    path = Path(path).resolve()
    if not (path / MANIFEST).is_file():
        latest = _latest(path)
        if latest is None:
            raise FileNotFoundError(
                f"no checkpoint in {path}; give a checkpoint-N or a run's folder"
            )
        path = latest
    read_manifest(path)
    return path


def settings_file(checkpoint: Path) -> Path:
    """The settings that a checkpoint's run was started with: a YAML file that may be missing.

    Checkpoints of earlier versions do not hold it; their run's folder does.
    """
    inside = checkpoint / "settings.yaml"
    return inside if inside.is_file() else checkpoint.parent / "settings.yaml"


def trained_state(path: str | Path) -> dict[str, Tensor]:
    """The trained tensors of `find_checkpoint(path)` by name, in fp32 on CPU, or their moving
    average where the run kept one; read without model, engine or other processes.
    """
    checkpoint = find_checkpoint(path)
    manifest = read_manifest(checkpoint)
    names, folder = list(manifest["trainable"]), checkpoint / _TAG
    # every stage's first file holds the state that was saved; stage 0's the tensors, too
    files = sorted(folder.glob("*model_states.pt"))
    with _weights_only(checkpoint):
        content = torch.load(files[0], map_location="cpu", mmap=True, weights_only=True)
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
    for folder in output_dir.glob("checkpoint-*"):
        if re.fullmatch(r"checkpoint-\d+", folder.name) and not (folder / MANIFEST).is_file():
            raise ValueError(
                f"{folder} holds no {MANIFEST}, so it is no checkpoint of this program; move it "
                "away, or choose another --output_dir"
            )
    if resume_from_checkpoint == "latest":
        path = _latest(output_dir)
        if path is None:
            raise FileNotFoundError(
                f"no checkpoint in {output_dir}; leave out --resume_from_checkpoint to start anew"
            )
    else:
        path = None if resume_from_checkpoint is None else Path(resume_from_checkpoint).resolve()
    if path is not None and not path.is_dir():
        raise FileNotFoundError(f"no checkpoint {path}; give a checkpoint-N folder or 'latest'")
    latest = _named_latest(output_dir)
    if latest is not None and (path is None or path.parent != output_dir):
        raise ValueError(
            f"{output_dir} holds {latest or 'checkpoints'} of another run; add "
            "--resume_from_checkpoint latest to go on with it, or choose another --output_dir"
        )
    if latest is None:
        _refuse_foreign(output_dir)
    return path


def _refuse_foreign(output_dir: Path) -> None:
    """Refuses a folder without checkpoints whose files a run would replace, unless an earlier run,
    which ended before its first checkpoint, wrote its settings there.
    """
    found = [name for name in ("settings.yaml", "metrics.jsonl") if (output_dir / name).exists()]
    settings = None
    if "settings.yaml" in found:
        with contextlib.suppress(ValueError, OSError, yaml.YAMLError, RecursionError):
            settings = yaml.safe_load((output_dir / "settings.yaml").read_text(encoding="utf-8"))
    is_ours = isinstance(settings, dict) and {"output_dir", "max_train_steps"} <= settings.keys()
    if found and not is_ours:
        raise ValueError(
            f"{output_dir / found[0]} is there, and no run of this program wrote it; move it away, "
            "or choose another --output_dir"
        )


def _merged_shards(checkpoint: Path) -> dict[str, Tensor]:
    """The fp32 tensors that the processes of ZeRO 1-3 saved in parts."""
    with contextlib.redirect_stdout(None):
        from deepspeed.utils import zero_to_fp32

        with mock.patch.object(zero_to_fp32, "tqdm", lambda files, **_: files):
            return zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), _TAG)


@contextlib.contextmanager
def _weights_only(checkpoint: Path) -> Iterator[None]:
    """Lets DeepSpeed, which asks torch to unpickle anything, read tensors and plain values alone.

    Raises:
        ValueError: a file of the checkpoint holds something else.
    """
    environment = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    if not torch.cuda.is_available():
        environment["DS_ACCELERATOR"] = "cpu"
    with mock.patch.dict(os.environ, environment):
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # torch refuses both
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        def member(enum: type, name: str) -> Any:
            """Stands for the `getattr` by which Python 3.11.0 to 3.11.3 pickle a ZeRO stage."""
            if enum is not ZeroStageEnum:
                raise pickle.UnpicklingError("GLOBAL getattr")
            return ZeroStageEnum[name]

        ours = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
        ours += [(member, "builtins.getattr"), (member, "__builtin__.getattr")]
        try:
            with torch.serialization.safe_globals(ours):
                yield
        except _FOREIGN as error:
            is_of_reader = re.search("PytorchStreamReader|mmap can only be used", str(error))
            if isinstance(error, RuntimeError) and not is_of_reader:
                raise
            code = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"the code of {code[1]}" if code else str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"{checkpoint} holds other things than the tensors and values of a checkpoint "
                f"({reason}); give another checkpoint"
            ) from error


def _latest(output_dir: Path) -> Path | None:
    """The checkpoint that `latest` names, None where there is no such file."""
    name = _named_latest(output_dir)
    if name is None:
        return None
    if re.fullmatch(r"checkpoint-\d+", name) and (output_dir / name / MANIFEST).is_file():
        return output_dir / name
    found = sorted(path.parent.name for path in output_dir.glob(f"checkpoint-*/{MANIFEST}"))
    raise ValueError(
        f"{output_dir / 'latest'} names {name[:40]!r}, which is no checkpoint of that folder; give "
        f"a checkpoint's own folder instead, of which there are: {', '.join(found) or 'none'}"
    )


def _named_latest(output_dir: Path) -> str | None:
    path = output_dir / "latest"
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else None


def _remove_leftovers(output_dir: Path) -> None:
    """Removes what killed processes left: folders of our temporary names that hold our mark, or
    nothing.
    """
    for path in output_dir.iterdir():
        if not _TEMPORARY.fullmatch(path.name) or path.is_symlink():
            continue
        if (path / MARK).is_file() or (path / MANIFEST).is_file():
            _delete(path)
        else:
            with contextlib.suppress(OSError):
                path.rmdir()


def _publish(partial: Path, final: Path, last: Path | None) -> None:
    """Flushes a complete folder, gives it its name, then lets `latest` name it.

    A folder that has this name already was left by a longer run than the one that resumed from
    `last`, its neighbour. New contents of `latest` are written into the complete folder first, so
    that a full disk refuses them before anything is renamed, and a killed process leaves no file.
    """
    latest, temporary = final.parent / "latest", partial / "latest"
    if final.exists():
        if last is not None and _named_latest(final.parent) == final.name:
            temporary.write_text(last.name + "\n", encoding="utf-8")
            flush(temporary)
            temporary.replace(latest)
            flush(final.parent)
        if not (final / MANIFEST).is_file():
            raise ValueError(f"{final} is no checkpoint of this program; move it away and resume")
        _remove(final)
    temporary.write_text(final.name + "\n", encoding="utf-8")
    flush(*partial.rglob("*"), partial)
    partial.rename(final)
    flush(final.parent)
    (final / "latest").replace(latest)
    flush(final, final.parent)


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint, first from under its name, so that no half of one has it."""
    _delete(checkpoint.rename(temporary_sibling(checkpoint)))


def _delete(folder: Path) -> None:
    """Removes a folder, the files that mark it as ours last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name in (MARK, MANIFEST)):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()


def _remove_oldest(output_dir: Path, step: int, total_limit: int) -> None:
    found = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output_dir.iterdir())
    steps = sorted(int(match[1]) for match in found if match and int(match[1]) <= step)
    for old in steps[: -max(total_limit, 1)]:
        path = output_dir / f"checkpoint-{old}"
        if (path / MANIFEST).is_file():
            _remove(path)
