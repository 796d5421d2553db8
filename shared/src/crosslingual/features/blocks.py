"""Blocks of features: the same arrays for consecutive samples, in one file of safetensors.

An array of varying rows (`Ragged`) is stored flat under its name, and the lengths of its rows under
NAME.lengths.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from crosslingual.features.ragged import Ragged, concatenate

LENGTHS = ".lengths"
Arrays = Mapping[str, Tensor | Ragged]


def join(pieces: Sequence[Arrays]) -> dict[str, Tensor | Ragged]:
    """Several batches' arrays as one's."""
    joined: dict[str, Tensor | Ragged] = {}
    for name, first in pieces[0].items():
        parts = [piece[name] for piece in pieces]
        joined[name] = concatenate(parts) if isinstance(first, Ragged) else torch.cat(parts)
    return joined


def save_block(path: Path, arrays: Arrays, keys: list[str], **notes: Any) -> None:
    """Writes one block, with the samples' keys and further JSON values as its notes, under a
    temporary name and renames it, so that it is complete or absent.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if isinstance(array, Ragged):
            tensors |= {name: array.values, name + LENGTHS: array.lengths.int()}
        else:
            tensors[name] = array
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {n: json.dumps(v) for n, v in {"keys": keys, **notes}.items() if v or n == "keys"}
    save_file(tensors, temporary, metadata=metadata)
    os.replace(temporary, path)


def read_notes(path: Path) -> dict[str, Any]:
    """The `keys` of a block's samples and its other notes, without its arrays."""
    with safe_open(path, "pt") as file:
        return {name: json.loads(note) for name, note in file.metadata().items()}


def read_block(path: Path) -> dict[str, Tensor | Ragged]:
    """The arrays of a block, memory-mapped, so that only the rows in use are read."""
    tensors = load_file(path)
    ragged = {name.removesuffix(LENGTHS) for name in tensors if name.endswith(LENGTHS)}
    return {
        name: Ragged(tensor, tensors[name + LENGTHS].long()) if name in ragged else tensor
        for name, tensor in tensors.items()
        if not name.endswith(LENGTHS)
    }


def gather(
    blocks: Sequence[Arrays],
    places: Sequence[Tensor],
    local: Sequence[Tensor],
    names: Collection[str] | None,
) -> dict[str, Tensor | Ragged]:
    """Rows of several blocks as one batch: the rows `local` of each block go to the `places` in the
    batch. `names` chooses arrays.

    Raises:
        ValueError: the blocks hold no array of a name.
    """
    held = blocks[0].keys()
    if names is not None and (absent := sorted({*names} - held)):
        raise ValueError(f"the features hold no {absent[0]}; there are {', '.join(sorted(held))}")
    chosen = held if names is None else names
    pairs = zip(blocks, local, strict=True)
    pieces = [{name: _select(block[name], rows) for name in chosen} for block, rows in pairs]
    if len(pieces) == 1:
        return pieces[0]
    order = torch.cat(list(places)).argsort()
    return {name: _select(array, order) for name, array in join(pieces).items()}


def _select(array: Tensor | Ragged, rows: Tensor) -> Tensor | Ragged:
    return array.select(rows) if isinstance(array, Ragged) else array.index_select(0, rows)
