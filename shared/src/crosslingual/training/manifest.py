"""What a checkpoint is, besides its tensors: step, ZeRO stage, processes, shapes, file sizes."""

import json
from pathlib import Path
from typing import Any

import torch

from crosslingual.training.engine import trainable_shapes

_VERSION = 1
MANIFEST = "checkpoint.json"


def write_manifest(engine: Any, folder: Path, step: int) -> None:
    """Writes `checkpoint.json` into a folder that all processes' DeepSpeed has filled.

    Raises:
        ValueError: if processes on another machine wrote to a disk of their own.
    """
    files = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    stage, world_size = engine.zero_optimization_stage(), torch.distributed.get_world_size()
    num_shards = sum(name.endswith("optim_states.pt") for name in files)
    if stage > 0 and num_shards != world_size:
        raise ValueError(
            f"{num_shards} of {world_size} processes wrote into {folder}; --output_dir must be on "
            "a disk that all machines share"
        )
    manifest = {
        "version": _VERSION,
        "step": step,
        "zero_stage": stage,
        "world_size": world_size,
        "trainable": trainable_shapes(engine),
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's manifest and checks that every file has its size.

    Raises:
        ValueError: for a folder that is no checkpoint of ours, or a truncated one.
    """
    if not (path / MANIFEST).is_file():
        raise ValueError(f"{path} is no checkpoint of this program: it holds no {MANIFEST}")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path / MANIFEST} is broken; resume from another one") from error
    if manifest["version"] != _VERSION:
        raise ValueError(f"{path} has version {manifest['version']}; this program reads {_VERSION}")
    for name, size in manifest["files"].items():
        file = path / name
        found = file.stat().st_size if file.is_file() else 0
        if found != size:
            raise ValueError(
                f"{file} is truncated ({found} of {size} bytes); resume from another checkpoint"
            )
    return manifest


def check_fits(engine: Any, manifest: dict[str, Any], path: Path) -> None:
    """Refuses a checkpoint of another module, ZeRO stage or, at stages 1-3, number of processes.

    Raises:
        ValueError: saying what differs.
    """
    here, saved = trainable_shapes(engine), manifest["trainable"]
    if here != saved:
        differ = sorted(n for n in here.keys() | saved.keys() if here.get(n) != saved.get(n))
        name = differ[0]
        raise ValueError(
            f"{path} was saved by another module: {len(differ)} tensors differ, such as {name} "
            f"({saved.get(name)} there, {here.get(name)} here)"
        )
    stage, world_size = engine.zero_optimization_stage(), torch.distributed.get_world_size()
    same_world = world_size == manifest["world_size"] or stage == 0
    if stage != manifest["zero_stage"] or not same_world:
        raise ValueError(
            f"{path} was written by {manifest['world_size']} processes at ZeRO stage "
            f"{manifest['zero_stage']}, not {world_size} at stage {stage}; resume as it was written"
        )
