"""Blocks of features: the same arrays for consecutive samples, in one file of safetensors.

An array of varying rows (`Ragged`) is stored flat under its name, and the lengths of its rows under
NAME.lengths. A block's notes hold the SHA-256 of everything else in it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crosslingual.features.ragged import Ragged, concatenate
from crosslingual.files import replacing

LENGTHS = ".lengths"
REMEDY = "remove it and run `features` again, which makes what is missing"
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
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if isinstance(array, Ragged):
            tensors |= {name: array.values, name + LENGTHS: array.lengths.int()}
        else:
            tensors[name] = array
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {n: json.dumps(v) for n, v in {"keys": keys, **notes}.items() if v or n == "keys"}
    metadata["sha256"] = json.dumps(_digest(tensors, metadata))
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        _sort_metadata(temporary)


def read_notes(path: Path) -> dict[str, Any]:
    """The `keys` of a block's samples and its other notes, without its arrays."""
    return _read(path, with_tensors=False)[1]


def read_block(
    path: Path, sha256: str | None = None, *, verify: bool = True
) -> dict[str, Tensor | Ragged]:
    """The arrays of a block, memory-mapped, so that only the rows in use are read.

    To verify a block is to read it whole, 1.7 GB/s on a core: under 0.1 % of the first epoch of
    `pea train` on the drawn world's features, which are 22 kB a sample.

    Args:
        path: of the block.
        sha256: what the features' index says of it, None where an earlier version wrote that.
        verify: whether names, types, shapes, values and notes are compared with their SHA-256;
            blocks of earlier versions have none.

    Raises:
        ValueError: the file is truncated, no block, or not what was written.
    """
    tensors, notes = _read(path)
    written = notes.pop("sha256", None)
    if verify and (written or sha256):
        metadata = {name: json.dumps(note) for name, note in notes.items()}
        if _digest(tensors, metadata) != written or written != (sha256 or written):
            raise ValueError(f"{path} is damaged (its SHA-256 is another one); {REMEDY}")
    ragged = {name.removesuffix(LENGTHS) for name in tensors if name.endswith(LENGTHS)}
    return {
        name: Ragged(tensor, tensors[name + LENGTHS].long()) if name in ragged else tensor
        for name, tensor in tensors.items()
        if not name.endswith(LENGTHS)
    }


def _read(path: Path, *, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            notes = {name: json.loads(note) for name, note in (file.metadata() or {}).items()}
            if not isinstance(notes["keys"], list):
                raise ValueError("its keys are no list")
            return {n: file.get_tensor(n) for n in file.keys() if with_tensors}, notes  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is truncated or no block ({reason}); {REMEDY}") from error


def _sort_metadata(path: Path) -> None:
    """Sorts a file's metadata, whose order safetensors draws: equal blocks have equal bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text.rstrip()) <= size, "the same header in another order"
        file.seek(8)
        file.write(text.ljust(size))


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of a block's tensors and notes."""
    shapes = [[n, str(t.dtype), list(t.shape)] for n, t in sorted(tensors.items())]
    whole = hashlib.sha256(json.dumps([sorted(metadata.items()), shapes]).encode())
    for _, tensor in sorted(tensors.items()):
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()


def gather(
    blocks: Sequence[Arrays],
    places: Sequence[Tensor],
    local: Sequence[Tensor],
    names: Collection[str] | None,
) -> dict[str, Tensor | Ragged]:
    """Rows of several blocks as one batch: the rows `local` of each block go to the `places` in the
    batch. `names` chooses arrays.
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
