"""Blocks of features: the same arrays for consecutive samples, in one file of safetensors.

An array of varying rows (`Ragged`) is stored flat under its name, and the lengths of its rows under
NAME.lengths.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
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
    """Writes one block under a temporary name and renames it, so that it is complete or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if isinstance(array, Ragged):
            tensors |= {name: array.values, name + LENGTHS: array.lengths.int()}
        else:
            tensors[name] = array
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, temporary, metadata={"keys": json.dumps(keys)})
    os.replace(temporary, path)


def read_keys(path: Path) -> list[str]:
    """The sample keys of a block, without its arrays."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["keys"])


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
    """Rows of several blocks as one batch, each array by one gather a block.

    Args:
        blocks: that hold the batch's rows.
        places: where the rows of each block go in the batch.
        local: the numbers of those rows in each block.
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
        is_ragged = isinstance(arrays[0], Ragged)
        result[name] = (_gather_ragged if is_ragged else _gather_dense)(arrays, places, local)
    return result


def _gather_dense(
    arrays: Sequence[Tensor], places: Sequence[Tensor], local: Sequence[Tensor]
) -> Tensor:
    if len(arrays) == 1:
        return arrays[0].index_select(0, local[0])
    result = arrays[0].new_empty(sum(map(len, places)), *arrays[0].shape[1:])
    for array, place, rows in zip(arrays, places, local, strict=True):
        result[place] = array[rows]
    return result


def _gather_ragged(
    arrays: Sequence[Ragged], places: Sequence[Tensor], local: Sequence[Tensor]
) -> Ragged:
    chosen = [array.select(rows) for array, rows in zip(arrays, local, strict=True)]
    if len(chosen) == 1:
        return chosen[0]
    lengths = torch.cat([part.lengths for part in chosen])[torch.cat(places).argsort()]
    starts = lengths.cumsum(0) - lengths
    result = chosen[0].values.new_empty(int(lengths.sum()), *chosen[0].values.shape[1:])
    for part, place in zip(chosen, places, strict=True):
        result[spans(starts[place], part.lengths)] = part.values
    return Ragged(result, lengths)
