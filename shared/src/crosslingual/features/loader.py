"""Features: the outputs of frozen parts, computed once, stored in blocks, read back in batches.

A folder of features holds `block-00000.safetensors`, ... with the same arrays for consecutive
samples, `null.safetensors` with the states of the empty prompt, and `index.json`, written last.
`index.json` names what the features were made of; features made of anything else are stale and
refused. Blocks are memory-mapped, so that a batch reads only its own rows.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from crosslingual.features.blocks import gather, read_block, read_notes
from crosslingual.features.ragged import Ragged
from crosslingual.files import write_text
from crosslingual.frozen.tokens import CutCounts

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
        cut: captions that were longer than the encoder's limit, and their lost tokens, by language.
    """

    made_of: dict[str, Any]
    blocks: list[dict[str, Any]]
    languages: list[str]
    cut: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Samples in all blocks."""
        return sum(block["num_rows"] for block in self.blocks)


def is_features(path: str | Path) -> bool:
    """Whether a folder holds features rather than shards."""
    index = Path(path) / INDEX
    return index.is_file() and "made_of" in json.loads(index.read_text())


def claim(folder: Path, made_of: dict[str, Any]) -> None:
    """Marks a folder as being filled with features of `made_of`, or checks that it is.

    Raises:
        ValueError: the folder holds features, finished or not, of something else.
    """
    if (folder / INDEX).is_file():
        check_fresh(read_index(folder).made_of, made_of, folder)
    elif (folder / CLAIM).is_file():
        check_fresh(json.loads((folder / CLAIM).read_text()), made_of, folder)
    else:
        write_text(folder / CLAIM, json.dumps(made_of))


def finish_features(folder: Path) -> FeatureIndex:
    """Writes `index.json` over all blocks, which makes the folder's features complete."""
    made_of = json.loads((folder / CLAIM).read_text())
    paths = sorted(folder.glob("block-*.safetensors"))
    blocks, cut = [], CutCounts()
    for path in paths:
        notes = read_notes(path)
        blocks.append({"name": path.name, "num_rows": len(notes["keys"])})
        cut.add(notes.get("cut", {}))
    index = FeatureIndex(made_of, blocks, made_of["languages"], cut.as_json())
    write_text(folder / INDEX, json.dumps({"version": VERSION, **vars(index)}, indent=1))
    return index


def read_index(folder: str | Path) -> FeatureIndex:
    """Reads `index.json`.

    Raises:
        FileNotFoundError: the folder holds no complete features.
        ValueError: they are of another version of this format.
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


def check_fresh(found: Mapping[str, Any], made_of: Mapping[str, Any], folder: str | Path) -> None:
    """Refuses features that were made of other models, settings or shards; only the keys that
    `made_of` names have to agree.

    Raises:
        ValueError: with the first difference.
    """
    for name, wanted in made_of.items():
        if found.get(name) != wanted:
            raise ValueError(
                f"the features in {folder} are stale: {name} was {found.get(name)!r} and is "
                f"{wanted!r}; make them anew or change the setting"
            )


class FeatureLoader:
    """Batches of features in an order that is a function of (seed, epoch) alone.

    The global batch of a step is a slice of the epoch's permutation, and each rank takes its part
    of it. As long as `world_size x batch_size` stays, the number of ranks changes nothing, and a
    run resumes at any step without reading what came before.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        made_of: Mapping[str, Any] | None = None,
    ):
        """Opens the folder; with `made_of`, its features must be made of that. `batch_size` is that
        of a rank.

        Raises:
            FileNotFoundError: no complete features, or a block is missing.
            ValueError: fewer samples than one global batch, or features of something else.
        """
        self.folder, self.index = Path(folder), read_index(folder)
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        if len(self) == 0:
            raise ValueError(
                f"{self.index.num_rows} samples in {folder} do not fill one batch of {world_size} "
                f"ranks x {batch_size}: lower train_batch_size or add data"
            )
        check_fresh(self.index.made_of, made_of or {}, folder)
        self._paths = [self.folder / block["name"] for block in self.index.blocks]
        missing = [path.name for path in self._paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} lacks {missing[0]}: make the features anew")
        self._blocks: dict[int, dict[str, Tensor | Ragged]] = {}
        num_rows = torch.tensor([block["num_rows"] for block in self.index.blocks])
        self._ends = num_rows.cumsum(0)
        self._starts = self._ends - num_rows
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def __len__(self) -> int:
        """Steps of an epoch, equal on all ranks; samples that do not fill a global batch wait for
        another epoch.
        """
        return self.index.num_rows // (self.batch_size * self.world_size)

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt."""
        return load_file(self.folder / NULL)

    def rows(
        self, indices: Tensor, names: Collection[str] | None = None
    ) -> dict[str, Tensor | Ragged]:
        """The arrays of the samples with the numbers `indices` (B,), at least one, in that order
        and in the stored dtype: by name (B, ...), or a `Ragged` of B rows. `names` chooses arrays.

        Raises:
            ValueError: there is no array of a name.
        """
        numbers = torch.searchsorted(self._ends, indices, right=True)
        blocks, places, local = [], [], []
        for number in numbers.unique().tolist():
            if number not in self._blocks:
                self._blocks[number] = read_block(self._paths[number])
            blocks.append(self._blocks[number])
            places.append((numbers == number).nonzero().flatten())
            local.append(indices[places[-1]] - self._starts[number])
        return gather(blocks, places, local, names)

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
        numbers = torch.searchsorted(self._ends, indices, right=True)
        pairs = zip(numbers.tolist(), (indices - self._starts[numbers]).tolist(), strict=True)
        return [read_notes(self._paths[number])["keys"][row] for number, row in pairs]

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Tensor | Ragged]]:
        """Endless batches from a step on; `rows` holds the sample numbers, for `keys`."""
        for step in count(start_step):
            chosen = self.indices(step)
            yield {**self.rows(chosen), "rows": chosen}
