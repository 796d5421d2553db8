"""The sentences of one pair of languages in a folder of tokens, read from memory-mapped blocks."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from mclip.parallel_text import Pair
from mclip.token_blocks import pair_name


class PairTokens:
    """The sentences of one pair of languages, in one direction; nothing is read before it is asked
    for.
    """

    def __init__(self, folder: str | Path, index: dict[str, Any], pair: Pair) -> None:
        """Opens the blocks that hold the pair.

        Args:
            folder: of tokens.
            index: what `read_index` said of it.
            pair: source and target language.

        Raises:
            ValueError: the folder holds no sentence of the pair.
        """
        self.pair = pair
        name = pair_name(pair)
        self._blocks = [block for block in index["blocks"] if block["num_rows"].get(name)]
        if not self._blocks:
            there = ", ".join(name for name, count in index["num_rows"].items() if count)
            raise ValueError(f"{folder} holds no sentences of {name}; there are {there or 'none'}")
        self._folder = Path(folder)
        self._ends = np.cumsum([block["num_rows"][name] for block in self._blocks])
        self.num_rows = int(self._ends[-1])

    @functools.cache  # noqa: B019, as long-lived as the arrays
    def _arrays(self, number: int) -> dict[str, np.ndarray]:
        name = pair_name(self.pair)
        with safe_open(self._folder / self._blocks[number]["name"], "pt") as file:
            return {
                key.removeprefix(f"{name}/"): file.get_tensor(key).numpy()  # a view of the file
                for key in file.keys()
                if key.startswith(f"{name}/")
            }

    def _local(self, rows: np.ndarray) -> Iterator[tuple[dict[str, np.ndarray], Any, np.ndarray]]:
        """By block: its arrays, the places in `rows` that it answers, and the rows in it."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            first = self._ends[number] - self._blocks[number]["num_rows"][pair_name(self.pair)]
            yield self._arrays(int(number)), places, rows[places] - first

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of the given rows' source and target sentences: (len(rows), 2)."""
        lengths = np.empty((len(rows), 2), dtype=np.int64)
        for arrays, places, local in self._local(rows):
            for side, language in enumerate(self.pair):
                offsets = arrays[f"{language}.offsets"]
                lengths[places, side] = offsets[local + 1] - offsets[local]
        return lengths

    def ids(self, rows: np.ndarray, side: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask (B, L) of the rows' source (0) or target (1) sentences, padded on the
        right to the longest.
        """
        lengths = self.lengths(rows)[:, side]
        ids = np.full((len(rows), lengths.max()), pad, dtype=np.int64)
        mask = np.arange(lengths.max()) < lengths[:, None]
        language = self.pair[side]
        for arrays, places, local in self._local(rows):
            starts = arrays[f"{language}.offsets"][local]
            flat = (starts[:, None] + np.arange(lengths.max()))[mask[places]]
            block = np.full((len(places), lengths.max()), pad, dtype=np.int64)
            block[mask[places]] = arrays[f"{language}.ids"][flat]
            ids[places] = block
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def keys(self, rows: np.ndarray) -> list[str]:
        """Source and number of each row, for messages."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        found = np.empty(len(rows), dtype=np.int64)
        for arrays, places, local in self._local(rows):
            found[places] = arrays["numbers"][local]
        sources = [self._blocks[number]["source"] for number in numbers]
        return [f"{source}:{number}" for source, number in zip(sources, found, strict=True)]
