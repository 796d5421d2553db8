"""Features: the outputs of frozen parts, computed once, stored as safetensors blocks, read back in
batches.

A folder of features holds `block-00000.safetensors`, ... with the same arrays for consecutive
samples, `null.safetensors` with the states of the empty prompt, and `index.json`, written last.
`index.json` names what the features were made of; features made of anything else are stale and
refused. Blocks are memory-mapped, so that a batch reads its rows alone (`feature_blocks.py`).
"""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from crosslingual.features.blocks import gather, read_block
from crosslingual.features.ragged import Ragged

INDEX = "index.json"
NULL = "null.safetensors"
CLAIM = "made_of.json"
VERSION = 1


@dataclass(frozen=True)
class FeatureIndex:
    """What `index.json` says.

    Attributes:
        made_of: the models, their revisions and dtypes, the settings and the shards' hash: the key
            of the features.
        blocks: file names and row counts, in order.
        languages: order of the language axis of multilingual arrays.
    """

    made_of: dict[str, Any]
    blocks: list[dict[str, Any]]
    languages: list[str]

    @property
    def num_rows(self) -> int:
        """Samples in all blocks."""
        return sum(block["num_rows"] for block in self.blocks)


def is_features(path: str | Path) -> bool:
    """Whether a folder holds features rather than shards."""
    index = Path(path) / INDEX
    return index.is_file() and "made_of" in json.loads(index.read_text())


def write_atomically(path: Path, text: str) -> None:
    """Writes a small text file beside its place and renames it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)


def claim(folder: Path, made_of: dict[str, Any]) -> None:
    """Marks a folder as being filled with features of `made_of`, or checks that it is.

    Raises:
        ValueError: the folder holds features, finished or not, of something else.
    """
    if (folder / INDEX).is_file():
        check_fresh(read_index(folder), made_of, folder)
    elif (folder / CLAIM).is_file():
        check_fresh(FeatureIndex(json.loads((folder / CLAIM).read_text()), [], []), made_of, folder)
    else:
        write_atomically(folder / CLAIM, json.dumps(made_of))


def finish_features(folder: Path) -> FeatureIndex:
    """Writes `index.json` over all blocks, which makes the folder's features complete."""
    from safetensors import safe_open

    made_of = json.loads((folder / CLAIM).read_text())
    blocks = []
    for path in sorted(folder.glob("block-*.safetensors")):
        with safe_open(path, "pt") as file:
            blocks.append({"name": path.name, "num_rows": len(json.loads(file.metadata()["keys"]))})
    index = FeatureIndex(made_of, blocks, made_of["languages"])
    write_atomically(folder / INDEX, json.dumps({"version": VERSION, **vars(index)}, indent=1))
    return index


def read_index(folder: str | Path) -> FeatureIndex:
    """Reads `index.json`.

    Raises:
        FileNotFoundError: the folder holds no complete features.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"no complete features in {folder}: run the method's `features` verb (again)"
        )
    values = json.loads(path.read_text())
    if "made_of" not in values:
        raise FileNotFoundError(
            f"{folder} holds shards, not features: run the method's `features` verb on it"
        )
    if values.pop("version") != VERSION:
        raise ValueError(f"the features in {folder} are of another format version: make them anew")
    return FeatureIndex(**values)


def check_fresh(index: FeatureIndex, made_of: dict[str, Any], folder: str | Path) -> None:
    """Refuses features that were made of other models, settings or shards.

    `made_of` may name fewer keys than the index: those it names must agree.

    Raises:
        ValueError: with the first difference.
    """
    for name, wanted in made_of.items():
        found = index.made_of.get(name)
        if found != wanted:
            raise ValueError(
                f"the features in {folder} are stale: {name} was {found!r} and is {wanted!r}; "
                "make them anew or change the setting"
            )


class FeatureLoader:
    """Batches of features in an order that is a function of (seed, epoch) alone.

    The global batch of a step is a slice of the epoch's permutation, and each rank takes its part
    of it: the data do not depend on the number of ranks as long as `world_size x batch_size` stays,
    and resuming costs nothing.
    """

    def __init__(
        self, folder: str | Path, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ):
        """Opens the folder.

        Args:
            folder: of features.
            batch_size: samples a rank and step.
            seed: of the order.
            rank: this process.
            world_size: processes.

        Raises:
            FileNotFoundError: no complete features, or a block is gone.
            ValueError: fewer samples than one global batch.
        """
        self.folder = Path(folder)
        self.index = read_index(folder)
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        if len(self) == 0:
            raise ValueError(
                f"{self.index.num_rows} samples in {folder} do not fill one batch of {world_size} "
                f"ranks x {batch_size}: "
                "lower train_batch_size or add data"
            )
        missing = [b["name"] for b in self.index.blocks if not (self.folder / b["name"]).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} lacks {missing[0]}: make the features anew")
        self._blocks: dict[int, dict[str, Tensor | Ragged]] = {}
        ends = torch.tensor([block["num_rows"] for block in self.index.blocks]).cumsum(0)
        self._starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
        self._ends = ends
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def __len__(self) -> int:
        """Steps an epoch, equal on all ranks; what does not fill a global batch waits for another
        epoch.
        """
        return self.index.num_rows // (self.batch_size * self.world_size)

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt."""
        return load_file(self.folder / NULL)

    def _block(self, number: int) -> dict[str, Tensor | Ragged]:
        if number not in self._blocks:
            self._blocks[number] = read_block(self.folder / self.index.blocks[number]["name"])
        return self._blocks[number]

    def rows(
        self, indices: Tensor, names: Collection[str] | None = None
    ) -> dict[str, Tensor | Ragged]:
        """The arrays of the given samples, in that order, in the stored dtype.

        Args:
            indices: sample numbers (B,), at least one.
            names: the arrays to read; None for all.

        Returns:
            By name (B, ...), or a `Ragged` of B rows.

        Raises:
            ValueError: there is no array of a name.
        """
        numbers = torch.searchsorted(self._ends, indices, right=True)
        chosen = numbers.unique().tolist()
        places = [(numbers == number).nonzero().flatten() for number in chosen]
        local = [
            indices[place] - self._starts[number]
            for number, place in zip(chosen, places, strict=True)
        ]
        return gather([self._block(number) for number in chosen], places, local, names)

    def indices(self, step: int) -> Tensor:
        """Which samples this rank's batch of a step holds: (batch_size,)."""
        epoch, position = divmod(step, len(self))
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = (epoch, torch.randperm(self.index.num_rows, generator=generator))
        start = (position * self.world_size + self.rank) * self.batch_size
        return self._order[1][start : start + self.batch_size]

    def keys(self, indices: Tensor) -> list[str]:
        """The sample keys of the given rows, for messages."""
        from safetensors import safe_open

        names = []
        for index in indices.tolist():
            number = int(torch.searchsorted(self._ends, index, right=True))
            with safe_open(self.folder / self.index.blocks[number]["name"], "pt") as file:
                names.append(json.loads(file.metadata()["keys"])[index - int(self._starts[number])])
        return names

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Tensor | Ragged]]:
        """Endless batches from a step on; `rows` holds the sample numbers, for `keys`."""
        step = start_step
        while True:
            chosen = self.indices(step)
            yield {**self.rows(chosen), "rows": chosen}
            step += 1
