"""Frozen models' weights: from the hub, a folder or a world.

Frozen means three things together: `eval()`, `requires_grad_(False)`, and outputs taken without a
graph. Weights are read from safetensors alone, and a key that is missing or not expected is an
error: transformers would otherwise initialise the missing part at random and continue.
"""

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import SafetensorError
from torch import nn

from crosslingual.folders import check_folder
from crosslingual.worlds import model_folder

HEADS = ("lm_head.", "pooler.", "roberta.pooler.")  # of pretraining; an encoder has none


def resolve(name: str) -> str:
    """A model's folder or hub id; `testbed:NAME` is a model of an installed world."""
    folder = model_folder(name)
    return name if folder is None else str(folder)


def locate(name: str) -> str:
    """A local folder's absolute path, which holds wherever a command is called; other names as they
    are.
    """
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def freeze(module: nn.Module) -> nn.Module:
    """Sets evaluation mode and switches gradients off."""
    return module.eval().requires_grad_(False)


def load_frozen(
    model_class: type,
    name: str,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> Any:
    """Loads one frozen model of transformers or diffusers, strictly.

    Args:
        model_class: of the model.
        name: a folder, a hub id or WORLD:NAME.
        subfolder: of the model in it.
        revision: of the hub entry.
        variant: of the weights' files, such as `fp16`.
        dtype: of the weights.
        arguments: of the model's constructor.

    Raises:
        FileNotFoundError: there is no such folder or hub entry, or it has no readable safetensors.
        ValueError: a key is missing or not expected, or a file is not what its folder's mark says.
    """
    options = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype}
    options |= {"revision": revision, "subfolder": subfolder or ""}
    options |= {"variant": variant} if variant else {}
    place = f"{name}/{subfolder}" if subfolder else name
    if Path(resolve(name)).is_dir():
        check_folder(Path(resolve(name)) / (subfolder or ""))
    try:
        with quiet_libraries():
            model, info = model_class.from_pretrained(resolve(name), **options, **arguments)
    except (OSError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise FileNotFoundError(
            f"cannot load {place} as safetensors ({reason}); give a folder, hub id or WORLD:NAME"
        ) from error
    missing = list(info["missing_keys"])
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(HEADS)]
    if missing or unexpected:
        raise ValueError(
            f"{place} does not fit {model_class.__name__}: missing {missing[:4]}, "
            f"not expected {unexpected[:4]}; "
            "its layers would be random, so it is not used"
        )
    return freeze(model)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the libraries' bars and notes off the terminal while a model is loaded, since what
    matters of a load is checked and raised here. Afterwards both log as before: after the last of
    several threads that load at the same time, and after an error.
    """
    global _num_quiet
    with _lock:
        if _num_quiet == 0:
            _mute(_muted)
        _num_quiet += 1
    try:
        yield
    finally:
        with _lock:
            _num_quiet -= 1
            if _num_quiet == 0:
                _muted.close()


_lock, _num_quiet, _muted = threading.Lock(), 0, ExitStack()


def _mute(until: ExitStack) -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        log, logger = library.utils.logging, logging.getLogger(library.__name__)
        log.get_verbosity()  # sets the logger up, at its first use
        until.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        # what their functions switch, without the hub's bars, which they would switch as well
        until.enter_context(mock.patch.object(log, "_tqdm_active", False))


def weights_hash(name: str, subfolders: tuple[str, ...] = ("",)) -> str | None:
    """Identifies the weights of a model on this disk, so that another model at the same place is
    noticed: the SHA-256 of names and bytes of all safetensors in those of its subfolders that
    exist; None for a hub id, which its revision identifies.

    Raises:
        FileNotFoundError: the folder holds no safetensors.
    """
    folder = Path(resolve(name))
    if not folder.is_dir():
        return None
    files = sorted(path for part in subfolders for path in (folder / part).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no safetensors in {folder}: is it a model's folder?")
    whole = hashlib.sha256()
    for path in files:
        whole.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
