"""Exported adapters: config, tensors and model card in a folder of their own; strict loading."""

import contextlib
import functools
import os
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crosslingual.data.text import dump_json, parse_json
from crosslingual.files import check_fields
from crosslingual.folders import check_folder, claim_folder, publish_folder
from crosslingual.frozen.weights import differences, freeze
from crosslingual.worlds import model_folder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_VERSION = 1
_COUNT = Annotated[int, pydantic.Field(ge=1)] | None
_FIELDS = {"max_length": _COUNT, "languages": list[str] | None, "guidance_scale": float | None}
_FIELDS |= dict.fromkeys(("base", "base_revision", "text_encoder"), str | None)
"""Of a config, what shared code uses; what a method's own fields hold, its module says."""
MAY_DIFFER = ("languages", "guidance_scale", "seed", "merged")
"""Keys of configs in which exports of one base, encoder and shape may differ."""
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, LookupError, AttributeError, TypeError)
_UNREADABLE += (EOFError, ValueError, OverflowError)
"""What `torch.load` raises of files that hold something else."""
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def save_artifact(
    folder: str | Path,
    *,
    state: Mapping[str, Tensor] | None,
    config: Mapping[str, Any],
    card: str,
    add: Callable[[Path], None] | None = None,
    config_name: str = CONFIG,
    kind: str = "adapter",
) -> Path:
    """Writes an adapter's folder, complete or not at all.

    Args:
        folder: replaced if it holds an adapter already, whose files nobody changed since.
        state: the trained tensors, by the names that their module gives them; None where `add`
            writes them in a library's own form.
        config: what rebuilds the module: JSON values; `format_version` is added.
        card: the text of README.md, from `model_card`.
        add: writes what else belongs to the adapter, such as an encoder's folder, into the folder
            that it is given.
        config_name: of the file that holds `config`, where a library's own config.json lies there.
        kind: what the folder's mark calls it; only a folder of the same kind is replaced.

    Returns:
        The folder's absolute path.

    Raises:
        ValueError: the folder holds something else, or another process writes it.
        OSError: the disk is full; an earlier adapter is intact.
    """

    def fill(partial: Path) -> None:
        if add is not None:
            add(partial)
        if state is not None:
            # safetensors refuses tensors that share memory: each gets its own
            tensors = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in state.items()
            }
            save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        text = dump_json({"format_version": _VERSION, **config}, indent=2)
        (partial / config_name).write_text(text + "\n", encoding="utf-8")
        (partial / "README.md").write_text(card, encoding="utf-8")

    earlier = functools.partial(_written_before, method=config.get("method"))
    return publish_folder(folder, fill, kind=kind, earlier=earlier)


def claim_artifact(folder: str | Path, method: str, kind: str = "adapter") -> contextlib.ExitStack:
    """Locks a folder until `save_artifact` has written it; what that would refuse at a verb's end
    is refused at its start.
    """
    earlier = functools.partial(_written_before, method=method)
    return claim_folder(folder, kind=kind, earlier=earlier)


def load_artifact(
    folder: str | Path, method: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors, on CPU, of a folder that `save_artifact` wrote; pickles are never
    opened. With a `method`, the adapter has to be that method's.

    Raises:
        FileNotFoundError: a missing folder or file.
        ValueError: a pickle, a broken file, another method's adapter, or a version that this
            program does not know.
    """
    folder = Path(folder)
    if folder.is_file():
        _refuse_pickle(folder)
        raise ValueError(f"{folder} is no adapter folder")
    weights = folder / WEIGHTS
    if folder.is_dir() and not weights.is_file():
        for path in filter(Path.is_file, sorted(folder.iterdir())):
            _refuse_pickle(path)
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}; export the adapter again")
    return load_artifact_config(folder, method), load_tensors(weights)


def load_artifact_config(
    folder: str | Path, method: str | None = None, config_name: str = CONFIG
) -> dict[str, Any]:
    """An adapter's config, as `load_artifact`, without its tensors; `config_name` is that of
    `save_artifact`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter {folder}; export one first")
    path = folder / config_name
    if not path.is_file():
        raise FileNotFoundError(f"no {config_name} in {folder}; export the adapter again")
    try:
        config = _Config(parse_json(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not JSON of an adapter: {error}") from error
    config.path = path
    version = config.pop("format_version", None)
    if version != _VERSION:
        raise ValueError(f"{folder} has format_version {version}; this program reads {_VERSION}")
    if method is not None and config.get("method") != method:
        raise ValueError(f"{folder} holds an adapter of {config.get('method')!r}, not of {method}")
    check_fields(config, _FIELDS, path, "export the adapter again")
    check_folder(folder, [config_name])
    return config


class _Config(dict[str, Any]):
    """The object in a config file; a key that it lacks is a ValueError that names both."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.path} has no {key!r}; export the adapter again")


def load_adapter(
    folder: str | Path, method: str, build: Callable[[dict[str, Any]], nn.Module]
) -> tuple[nn.Module, dict[str, Any]]:
    """An exported adapter as the frozen module that `build` makes of its config, and the config."""
    config, state = load_artifact(folder, method)
    try:
        with torch.random.fork_rng(devices=[]):  # the caller's; what is drawn here is replaced
            adapter = build(config)
    except (TypeError, AttributeError, RuntimeError, OverflowError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{folder}/{CONFIG} describes no adapter of {method}: {reason}") from error
    load_strict(adapter, state)
    return freeze(adapter), config


def load_start(module: nn.Module, folder: str | Path, config: Mapping[str, Any]) -> None:
    """Loads an export's tensors into the module of a run that goes on from it and exports `config`.

    Raises:
        FileNotFoundError, ValueError: as `load_artifact`; or the export is of another base,
            encoder or shape.
    """
    found, state = load_artifact(folder, config["method"])
    check_alike({str(folder): found, "this run": config})
    load_strict(module, state)


def check_alike(configs: Mapping[str, Mapping[str, Any]], may_differ: Collection[str] = ()) -> None:
    """Refuses exports of one method that are not of one base, encoder and shape; `configs` are
    theirs by name, and `may_differ` keys that say how the method trained.

    Raises:
        ValueError: two differ in other keys than these and `MAY_DIFFER`; these keys are named with
            both values.
    """
    (folder, first), *others = configs.items()
    for other, config in others:
        keys = sorted({*first, *config} - {*MAY_DIFFER, *may_differ})
        told = [
            f"{key} ({first.get(key)!r:.60} and {config.get(key)!r:.60})"
            for key in keys
            if first.get(key) != config.get(key)
        ]
        if told:
            raise ValueError(
                f"{folder} and {other} differ in {', '.join(told)}: take exports of one base, "
                "encoder and shape"
            )


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a published file for import, in fp32: safetensors, or a pickle of
    tensors alone (`weights_only`). The prefix that DistributedDataParallel puts before names is
    taken off.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a dict of tensors, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    state = load_tensors(path) if path.suffix == ".safetensors" else open_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is no state dict of tensors")
    return {name.removeprefix("module."): value.float() for name, value in state.items()}


def open_pickle(path: str | Path, allowed: Sequence[type] = ()) -> Any:
    """What a published pickle holds, on the CPU: tensors, plain values, and classes of data alone
    that are `allowed`. Of other classes nothing runs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickle that holds more, or no pickle.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} is no plain state dict ({reason[:99]}): it is not opened"
        ) from error


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file onto the CPU: tensors by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickle, whatever its name says, a truncated file, or one that is not what its
            folder's mark says.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    _refuse_pickle(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is broken ({error}); copy or export it again") from error
    check_folder(path.parent, [path.name])
    return tensors


def load_strict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads tensors into a module whose names and shapes they match exactly.

    Raises:
        ValueError: lists what is missing, unexpected or of another shape; the module is unchanged.
    """
    if faults := differences(module.state_dict(), state):
        raise ValueError(f"these weights are not {type(module).__name__}'s; {faults}")
    module.load_state_dict(state)


def model_card(
    title: str,
    text: str,
    config: Mapping[str, Any],
    *,
    base_model: str | None = None,
    pipeline_tag: str = "text-to-image",
    tags: Sequence[str] = (),
    results: Sequence[Mapping[str, Any]] = (),
    **fields: Any,
) -> str:
    """The README.md of an adapter, with the head that the hub reads.

    Args:
        title: the heading.
        text: Markdown that says what the adapter is and how to use it, with fields to fill in: the
            config's keys, `fields`, `import_base` and `load_base`, two lines of Python that load
            the base's stock pipeline, and `call`, what it is called with after a prompt (the
            config's `call_options`), so that a snippet runs as it stands.
        config: the adapter's, with `method` and `languages`.
        base_model: hub id or name of the frozen base; the config's `base` if None.
        pipeline_tag: the hub's name of the task.
        tags: what the hub finds it by besides the method's name.
        results: rows of a table with the same keys, printed as they are.
        fields: further fields of `text`.
    """
    base = base_model or config["base"]
    if model_folder(base) is None:
        imported = "from diffusers import DiffusionPipeline"
        loaded = f'DiffusionPipeline.from_pretrained("{base}")'
    else:  # a world's, whose names diffusers does not know
        imported = "from crosslingual.frozen.base import Base"
        loaded = f'Base.open("{base}").load_pipeline()'
    is_of_hub = model_folder(base) is None and not Path(base).is_dir()
    head = {
        "library_name": "crosslingual",
        **({"base_model": base, "base_model_relation": "adapter"} if is_of_hub else {}),
        "language": list(config["languages"]),
        "pipeline_tag": pipeline_tag,
        "tags": [config["method"], "cross-lingual", *tags],
        "license": "mit",
    }
    options = config.get("call_options", {})
    fields["call"] = "".join(f", {name}={value!r}" for name, value in options.items())
    body = text.format(import_base=imported, load_base=loaded, **fields, **config).strip()
    parts = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---", f"# {title}", body]
    if results:
        rows = [list(results[0]), ["---"] * len(results[0])]
        rows += [[str(value) for value in row.values()] for row in results]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def _written_before(folder: Path, method: str | None) -> set[str]:
    """The files of an adapter that an earlier version, which left no mark, wrote."""
    names = {CONFIG, WEIGHTS, "README.md"}
    with contextlib.suppress(ValueError, FileNotFoundError):
        if method and load_artifact_config(folder, method) and names >= set(os.listdir(folder)):
            return names
    return set()


def _refuse_pickle(path: Path) -> None:
    """Raises ValueError for a pickle by its name, or by its first bytes where the name lies."""
    with path.open("rb") as file:
        start = file.read(9)
    # safetensors start with 8 bytes of a length, such as 640, that may look like a pickle's start
    is_pickle = start.startswith(_PICKLE_STARTS) and start[8:] != b"{"
    if is_pickle or path.suffix in _PICKLE_ENDINGS:
        raise ValueError(
            f"{path} is a pickle, which can run code; run the method's `import` verb to convert it"
        )
