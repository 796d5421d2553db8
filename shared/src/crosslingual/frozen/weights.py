"""Frozen models' weights: from the hub, a folder or a world.

Frozen means three things together: `eval()`, `requires_grad_(False)`, and outputs taken without a
graph. Weights are read from safetensors alone, and a key that is missing or not expected is an
error: transformers would otherwise initialise the missing part at random and continue.
"""

import hashlib
import json
import logging
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from crosslingual.files import is_full_disk, sha256_of
from crosslingual.folders import check_folder
from crosslingual.worlds import model_folder

CONFIGS = (
    "config.json model_index.json tokenizer_config.json preprocessor_config.json "
    "processor_config.json scheduler_config.json generation_config.json"
).split()
"""Files by which the libraries choose a class."""

HEADS = (
    "lm_head.", "pooler.", "roberta.pooler.", "bert.pooler.", "cls.", "vocab_transform.",
    "vocab_layer_norm.", "vocab_projector.", "head.dense.", "head.norm.", "decoder.bias",
    "decoder.weight",
)  # fmt: skip
"""Starts of the names of tensors of pretraining, which an encoder lacks."""


WEIGHTS_FILE = re.compile(
    r"(?:open_clip_|diffusion_)?(?:pytorch_)?model(?:\.(?P<early>[a-z]\w*))?"
    r"(?:-\d+-of-(?P<count>\d+))?(?:\.(?P<late>[a-z]\w*))?\.(?P<ending>safetensors|bin)"
)
"""Names of files of weights: the variant before or after the number of a shard."""


def resolve(name: str) -> str:
    """A model's folder or hub id; `testbed:NAME` is a model of an installed world."""
    folder = model_folder(name)
    return name if folder is None else str(folder)


def locate(name: str) -> str:
    """A local folder's absolute path, which holds wherever a command is called; other names as they
    are.
    """
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def refuse_code(name: str) -> None:
    """Refuses a model on this disk that brings code of its own, which is never run here."""
    folder = Path(resolve(name))
    for path in sorted(path for part in (".", "*") for path in folder.glob(f"{part}/*.json")):
        if path.name in CONFIGS:
            try:
                config = json.loads(path.read_bytes())
            except (ValueError, RecursionError):
                continue  # whoever needs the file says that it is broken
            own = isinstance(config, dict) and (config.get("auto_map") or config.get("_class_name"))
            if own and not isinstance(own, str):
                raise ValueError(
                    f"{path} asks for code of its own ({str(own):.60}), which is never run here; "
                    "give a model of the libraries' own classes"
                )


@contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Says in one line what is wrong with a model that the libraries read meanwhile. They get
    `trust_remote_code=False`, and no model that asks for code of its own. The error names the model
    and says what is read of it, in the words of `what`.

    Raises:
        FileNotFoundError: there is no such folder or hub entry.
        ValueError: a file is broken, or asks for code of its own.
    """
    refuse_code(name)
    try:
        yield
    except Exception as error:  # tokenizers raises Exception itself, of broken files
        lines = str(error).strip().split("\n")
        is_said = isinstance(error, ValueError | FileNotFoundError) and len(lines) == 1
        if isinstance(error, torch.OutOfMemoryError) or is_full_disk(error):
            raise
        if is_said and name in lines[0]:
            raise
        if isinstance(error, OSError) and not Path(resolve(name)).is_dir():
            raise FileNotFoundError(
                f"no folder and no reachable hub entry named {name!r} holds a {what}"
            ) from error
        kind = FileNotFoundError if isinstance(error, OSError) else ValueError
        raise kind(
            f"the {what} of {name} cannot be read ({type(error).__name__}: {lines[0][:200]}); give "
            "another, or copy it again"
        ) from error


def open_tokenizer(name: str, revision: str | None = None, **options: Any) -> Any:
    """A model's tokenizer: of a folder, a hub id or WORLD:NAME. The options are the tokenizer's."""
    from transformers import AutoTokenizer

    with reading(name, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            resolve(name), revision=revision, trust_remote_code=False, **options
        )


def differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What keeps a state dict from a module's own: names that are missing or unexpected, and
    shapes; empty where they match.
    """
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if own[name].shape != state[name].shape
        ],
    }
    return "; ".join(
        f"{kind}: {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if names[5:] else "")
        for kind, names in faults.items()
        if names
    )


def freeze(module: nn.Module) -> nn.Module:
    """Sets evaluation mode and switches gradients off."""
    return module.eval().requires_grad_(False)


def freeze_embeddings(encoder: nn.Module) -> None:
    """Switches the gradient of a transformers model's word embeddings off."""
    encoder.get_input_embeddings().weight.requires_grad_(False)


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module that do not train, by name: what a checkpoint of trained tensors
    leaves out.
    """
    return {n: p.detach() for n, p in module.named_parameters() if not p.requires_grad}


def load_frozen(
    model_class: type,
    name: str,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> Any:
    """Loads one frozen model of transformers or diffusers, strictly: from a folder, a hub id or
    WORLD:NAME, with the `arguments` of its constructor. A folder may hold the weights in a variant
    alone, such as fp16.

    Raises:
        FileNotFoundError: there is no such folder or hub entry, or it has no readable safetensors.
        ValueError: a key is missing or not expected, or a file is not what its folder's mark says.
    """
    options = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype}
    options |= {"revision": revision, "subfolder": subfolder or ""}
    if model_class.__module__.startswith("transformers."):
        options["trust_remote_code"] = False  # diffusers' models know no code of others
    place = f"{name}/{subfolder}" if subfolder else name
    folder = Path(resolve(name)) / (subfolder or "")
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if files:
        check_folder(folder)
        _refuse_pickles(name, subfolder, files)
    if variant := only_variant(files):
        options["variant"] = variant
    try:
        with reading(name, f"{subfolder or 'model'}"), quiet_libraries():
            model, info = model_class.from_pretrained(resolve(name), **options, **arguments)
    except (OSError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        remedy = "give a folder, hub id or WORLD:NAME"
        if not files:
            remedy += "; what the hub has as pickles or in fp16 alone is read from a folder: "
            remedy += f"`hf download {name} --local-dir FOLDER`"
        raise FileNotFoundError(
            f"cannot load {place} as safetensors ({reason}); {remedy}"
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


def _refuse_pickles(name: str, subfolder: str | None, files: Collection[str]) -> None:
    """Names the libraries' own way, which reads tensors alone, to write pickled weights anew."""
    endings = {Path(file).suffix for file in files}
    if ".bin" in endings and ".safetensors" not in endings:
        source = (
            "diffusers import DiffusionPipeline" if subfolder else "transformers import AutoModel"
        )
        code = f"from {source} as M; M.from_pretrained('{name}').save_pretrained('FOLDER')"
        raise FileNotFoundError(
            f"the weights of {name} are pickles, which are not read here; write them anew by "
            f'`python -c "{code}"`'
        )


def only_variant(files: Collection[str]) -> str | None:
    """The variant of weights, such as `fp16` of `model.fp16.safetensors`, if all safetensors among
    the files are of this one.
    """
    matches = [match for match in map(WEIGHTS_FILE.fullmatch, files) if match]
    found = {match["early"] or match["late"] for match in matches if match["ending"] != "bin"}
    return found.pop() if len(found) == 1 else None


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
        whole.update(bytes.fromhex(sha256_of(path)))
    return whole.hexdigest()
