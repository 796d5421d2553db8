"""Features: the outputs of frozen parts, computed once, stored in blocks, read back in batches.

A folder of features holds `block-00000.safetensors`, ... with the same arrays for consecutive
samples, `null.safetensors` with the states of the empty prompt, and `index.json`, written last.
`index.json` names what the features were made of; features made of anything else are stale and
refused. Blocks are compared with their SHA-256 when a loader first reads them, and memory-mapped,
so that a batch reads only its own rows.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from torch import Tensor

from crosslingual.features.blocks import REMEDY, gather, read_block, read_notes
from crosslingual.features.ragged import Ragged
from crosslingual.files import read_fields, write_json
from crosslingual.frozen.tokens import CutCounts

INDEX = "index.json"
NULL = "null.safetensors"
CLAIM = "made_of.json"
VERSION = 1
BLOCK_FORMAT = 2  # blocks that know what they are made of, and their SHA-256
_ANEW = "make the features anew"


class _Block(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(pattern=r"^block-\d+\.safetensors$")]
    num_rows: Annotated[int, pydantic.Field(ge=0)]
    sha256: str = ""


_FIELDS = {
    "version": int,
    "made_of": dict[str, Any],
    "blocks": list[_Block],
    "languages": list[str],
    "cut": dict[str, dict[str, int]] | None,
    "null_sha256": str | None,
}


@dataclass(frozen=True)
class FeatureIndex:
    """What `index.json` says.

    Attributes:
        made_of: the models, their revisions and dtypes, the settings and the shards' hash: the key
            of the features.
        blocks: file names, row counts and SHA-256, in order.
        languages: order of the language axis of multilingual arrays.
        cut: captions that were longer than the encoder's limit, and their lost tokens, by language.
        null_sha256: of the empty prompt's block.
    """

    made_of: dict[str, Any]
    blocks: list[dict[str, Any]]
    languages: list[str]
    cut: dict[str, dict[str, int]] = field(default_factory=dict)
    null_sha256: str | None = None

    @property
    def num_rows(self) -> int:
        """Samples in all blocks."""
        return sum(block["num_rows"] for block in self.blocks)


def is_features(path: str | Path) -> bool:
    """Whether a folder holds features rather than shards."""
    index = Path(path) / INDEX
    return index.is_file() and "made_of" in read_fields(index, {}, "make the folder anew")


def block_name(number: int) -> str:
    """The file of a block."""
    return f"block-{number:05d}.safetensors"


def claim(folder: Path, made_of: dict[str, Any]) -> None:
    """Marks a folder as being filled with features of `made_of`, or checks that it is.

    Raises:
        ValueError: the folder holds features, finished or not, of something else, or other files.
    """
    if (folder / INDEX).is_file():
        finished = read_index(folder).made_of
        check_fresh(finished, made_of, folder)
        write_json(folder / CLAIM, finished)
    elif (folder / CLAIM).is_file():
        check_fresh(_read_claim(folder), made_of, folder)
    elif foreign := sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")):
        raise ValueError(
            f"{folder} holds {foreign[0]}, which is not of these features; choose another, empty "
            "--features_dir"
        )
    else:
        write_json(folder / CLAIM, {**made_of, "block_format": BLOCK_FORMAT})


def claim_hash(folder: Path) -> str | None:
    """What every block of a claimed folder notes as `made_of`; None for those of earlier versions,
    which note nothing.
    """
    claimed = _read_claim(folder)
    if "block_format" not in claimed:
        return None
    return hashlib.sha256(json.dumps(claimed, sort_keys=True).encode()).hexdigest()


def is_written(folder: Path, name: str, made_of: str | None, *, verify: bool) -> bool:
    """Whether a block is in the folder, and one of those that note `made_of`.

    Raises:
        ValueError: it is truncated, damaged, or of other features.
    """
    path = folder / name
    if not path.exists():
        return False
    if read_notes(path).get("made_of") != made_of:
        raise ValueError(
            f"{path} is not of these features; move it away, or choose another --features_dir"
        )
    if verify:
        read_block(path)
    return True


def finish_features(folder: Path, num_blocks: int) -> FeatureIndex:
    """Writes `index.json` over the blocks, which makes the folder's features complete."""
    made_of, blocks, cut = _read_claim(folder), [], CutCounts()
    for name in map(block_name, range(num_blocks)):
        notes = read_notes(folder / name)
        block = {"name": name, "num_rows": len(notes["keys"])}
        blocks.append(block | ({"sha256": notes["sha256"]} if "sha256" in notes else {}))
        cut.add(notes.get("cut", {}))
    null = read_notes(folder / NULL).get("sha256")
    index = FeatureIndex(made_of, blocks, made_of["languages"], cut.as_json(), null)
    write_json(folder / INDEX, {"version": VERSION, **vars(index)})
    return index


def read_index(folder: str | Path) -> FeatureIndex:
    """Reads `index.json`.

    Raises:
        FileNotFoundError: the folder holds no complete features.
        ValueError: they are of another version of this format, or the file is broken.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"no complete features in {folder}: run the method's `features` verb (again)"
        )
    values = read_fields(path, {}, _ANEW)
    if "made_of" not in values:
        raise FileNotFoundError(
            f"{folder} holds shards, not features: run the method's `features` verb on it"
        )
    if values.get("version") != VERSION:
        raise ValueError(f"the features in {folder} are of another format version: make them anew")
    read_fields(path, _FIELDS, _ANEW)
    if values["languages"] != values["made_of"].get("languages"):
        raise ValueError(f"{path} is broken (it names languages twice, differently); {_ANEW}")
    del values["version"]
    return FeatureIndex(**{name: values[name] for name in _FIELDS if name in values})


def _read_claim(folder: Path) -> dict[str, Any]:
    return read_fields(folder / CLAIM, {"languages": list[str]}, _ANEW)


def check_fresh(found: Mapping[str, Any], made_of: Mapping[str, Any], folder: str | Path) -> None:
    """Refuses features that were made of other models, settings or shards; only the keys that
    `made_of` names have to agree.
    """
    for name, wanted in made_of.items():
        if found.get(name) == wanted:
            continue
        if name == "resolution" and found.get(name) is None:
            raise ValueError(
                f"the features in {folder} were made without pictures, which this run needs: make "
                "them anew"
            )
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
        verify: bool = True,
    ):
        """Opens the folder; with `made_of`, its features must be made of that. `batch_size` is that
        of a rank. `verify` compares each block with its SHA-256 when it is first read.

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
        self._verify = verify
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
        return read_block(self.folder / NULL, self.index.null_sha256, verify=self._verify)

    def rows(
        self, indices: Tensor, names: Collection[str] | None = None
    ) -> dict[str, Tensor | Ragged]:
        """The arrays of the samples with the numbers `indices` (B,), at least one, in that order
        and in the stored dtype: by name (B, ...), or a `Ragged` of B rows. `names` chooses arrays.

        Raises:
            ValueError: there is no array of a name, or a block is damaged.
        """
        numbers = torch.searchsorted(self._ends, indices, right=True)
        blocks, places, local = [], [], []
        for number in numbers.unique().tolist():
            if number not in self._blocks:
                self._blocks[number] = self._read(number)
            blocks.append(self._blocks[number])
            places.append((numbers == number).nonzero().flatten())
            local.append(indices[places[-1]] - self._starts[number])
        return gather(blocks, places, local, names)

    def _read(self, number: int) -> dict[str, Tensor | Ragged]:
        path, block = self._paths[number], self.index.blocks[number]
        arrays = read_block(path, block.get("sha256"), verify=self._verify)
        counts = {len(array) for array in arrays.values()}
        if counts != {block["num_rows"]}:
            raise ValueError(f"{path} holds {counts} rows, not {block['num_rows']}; {REMEDY}")
        return arrays

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
