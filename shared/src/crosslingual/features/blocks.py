"""Blocks of features: the same arrays for consecutive samples, as one file of safetensors.

An array of varying rows (`Ragged`) is stored flat under its name, and its rows' lengths beside it
under NAME.lengths.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crosslingual.features.ragged import Ragged, concatenate, spans

LENGTHS = ".lengths"
Arrays = Mapping[str, Tensor | Ragged]


def join(pieces: Sequence[Arrays]) -> dict[str, Tensor | Ragged]:
    """Several batches' arrays as one's."""
    joined: dict[str, Tensor | Ragged] = {}
    for name, first in pieces[0].items():
        parts = [piece[name] for piece in pieces]
        joined[name] = concatenate(parts) if isinstance(first, Ragged) else torch.cat(parts)
    return joined


def save_block(path: Path, arrays: Arrays, keys: list[str]) -> None:
    """Writes one block; a block that is there is complete."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if isinstance(array, Ragged):
            tensors |= {name: array.values, name + LENGTHS: array.lengths.int()}
        else:
            tensors[name] = array
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, beside, metadata={"keys": json.dumps(keys)})
    os.replace(beside, path)


def read_block(path: Path) -> dict[str, Tensor | Ragged]:
    """The arrays of a block, memory-mapped: what is not looked at is not read."""
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
    """Rows of several blocks as one batch, each array by one gather a block.

    Args:
        blocks: that hold the batch's rows.
        places: of each block, where its rows go in the batch.
        local: of each block, the numbers of those rows in it.
        names: the arrays to read; None for all.

    Raises:
        ValueError: the blocks hold no array of a name.
    """
    held = blocks[0].keys()
    if names is not None and (absent := sorted({*names} - held)):
        raise ValueError(f"the features hold no {absent[0]}; there are {', '.join(sorted(held))}")
    result: dict[str, Tensor | Ragged] = {}
    for name in held if names is None else names:
        arrays = [block[name] for block in blocks]
        if isinstance(arrays[0], Ragged):
            result[name] = _gather_ragged(arrays, places, local)
        else:
            result[name] = _gather_dense(arrays, places, local)
    return result


def _gather_dense(
    arrays: Sequence[Tensor], places: Sequence[Tensor], local: Sequence[Tensor]
) -> Tensor:
    if len(arrays) == 1:
        return arrays[0].index_select(0, local[0])
    total = sum(map(len, places))
    result = torch.empty(total, *arrays[0].shape[1:], dtype=arrays[0].dtype)
    for array, place, rows in zip(arrays, places, local, strict=True):
        result[place] = array[rows]
    return result


def _gather_ragged(
    arrays: Sequence[Ragged], places: Sequence[Tensor], local: Sequence[Tensor]
) -> Ragged:
    if len(arrays) == 1:
        return arrays[0].select(local[0])
    chosen = [array.select(rows) for array, rows in zip(arrays, local, strict=True)]
    lengths = _gather_dense([part.lengths for part in chosen], places, [_all(p) for p in chosen])
    starts = lengths.cumsum(0) - lengths
    result = chosen[0].values.new_empty(int(lengths.sum()), *chosen[0].values.shape[1:])
    for part, place in zip(chosen, places, strict=True):
        result[spans(starts[place], part.lengths)] = part.values
    return Ragged(result, lengths)


def _all(part: Ragged) -> Tensor:
    return torch.arange(len(part))
