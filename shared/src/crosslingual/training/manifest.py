"""What a checkpoint is, besides its tensors: step, ZeRO stage, processes, shapes, its files."""

import json
from pathlib import Path
from typing import Any

import torch

from crosslingual.files import read_fields, sha256_of
from crosslingual.folders import FileName, sha256_once
from crosslingual.training.engine import trainable_shapes

_VERSION = 1
MANIFEST = "checkpoint.json"
_FIELDS = {
    "version": int,
    "step": int,
    "zero_stage": int,
    "world_size": int,
    "trainable": dict[str, list[int]],
    "files": dict[FileName, int],
    "sha256": dict[str, str] | None,
    "deepspeed": dict[str, Any] | None,
}
_CHANGES_RESULTS = (
    "bf16",
    "fp16",
    "amp",
    "data_types",
    "communication_data_type",
    "gradient_allreduce_op",
    "gradient_predivide_factor",
    "prescale_gradients",
    "sparse_gradients",
)
"""Keys of a DeepSpeed configuration that change what is trained."""


def write_manifest(engine: Any, folder: Path, step: int) -> None:
    """Writes `checkpoint.json` into a folder that all processes' DeepSpeed has filled.

    Raises:
        ValueError: if processes on another machine wrote to a disk of their own.
    """
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    stage, world_size = engine.zero_optimization_stage(), torch.distributed.get_world_size()
    num_shards = sum(name.endswith("optim_states.pt") for name in paths)
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
        "files": {name: path.stat().st_size for name, path in paths.items()},
        "sha256": {name: sha256_of(path) for name, path in paths.items()},
        "deepspeed": _result_keys(engine),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's manifest and checks that every file is what was written: its size and
    SHA-256, which takes about a second a gigabyte, once in a process. Manifests of earlier versions
    hold sizes alone.

    Raises:
        ValueError: for a folder that is no checkpoint of ours, or a truncated or damaged one.
    """
    if not (path / MANIFEST).is_file():
        raise ValueError(f"{path} is no checkpoint of this program: it holds no {MANIFEST}")
    remedy = "give another checkpoint"
    manifest = read_fields(path / MANIFEST, {"version": int}, remedy)
    if manifest["version"] != _VERSION:
        raise ValueError(f"{path} has version {manifest['version']}; this program reads {_VERSION}")
    read_fields(path / MANIFEST, _FIELDS, remedy)
    present = {file.relative_to(path).as_posix() for file in path.rglob("*.pt")}
    if foreign := sorted(present - manifest["files"].keys()):
        raise ValueError(f"{path} holds {foreign[0]}, which is not of this checkpoint; remove it")
    for name, size in manifest["files"].items():
        file = path / name
        found = file.stat().st_size if file.is_file() else 0
        if found != size:
            raise ValueError(f"{file} is truncated ({found} of {size} bytes); {remedy}")
        sha256 = (manifest.get("sha256") or {}).get(name)
        if sha256 is not None and sha256_once(file) != sha256:
            raise ValueError(f"{file} is damaged (its SHA-256 is not that of {MANIFEST}); {remedy}")
    return manifest


def _result_keys(engine: Any) -> dict[str, Any]:
    config = engine._config._param_dict
    return {key: config[key] for key in _CHANGES_RESULTS if key in config}


def check_fits(engine: Any, manifest: dict[str, Any], path: Path) -> None:
    """Refuses a checkpoint of another module, ZeRO stage or, at stages 1-3, number of processes, or
    of a DeepSpeed configuration that trains something else.
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
    before, now = manifest.get("deepspeed"), json.loads(json.dumps(_result_keys(engine)))
    if before is not None and before != now:
        raise ValueError(
            f"{path} was trained with {json.dumps(before)} in the DeepSpeed config, not "
            f"{json.dumps(now)}; resume with the former --deepspeed_config"
        )
