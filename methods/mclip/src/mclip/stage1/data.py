"""Batches of sentence pairs from token arrays: one pair of languages a batch, of similar length.

The pair of a micro-step is a function of (seed, micro-step), and its sentences are one of (seed,
epoch, pair): the global batch does not depend on how many processes share it, and a resume costs
nothing. All processes train the same pair at a time, so that its sentences are one another's
negatives in the contrast between translations. A sentence that stands twice in a batch is counted
as a negative of its own translation, as in the published form.
"""

import functools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from crosslingual.folders import check_folder
from crosslingual.training.processes import Ranks
from mclip.stage1.parallel_text import Pair
from mclip.stage1.settings import TrainEncoderSettings
from mclip.stage1.tokens import pair_name, read_index

SHUFFLED_ROWS = 1 << 20  # neighbours on disk that are permuted together
SORTED_BATCHES = 128  # that are filled by length together
DRAWS_AT_A_TIME = 4096


class PairTokens:
    """The sentences of one pair of languages in a folder of tokens, in one direction, read from
    memory-mapped blocks when they are asked for.
    """

    def __init__(
        self, folder: str | Path, index: dict[str, Any], pair: Pair, *, verify: bool = True
    ) -> None:
        """Opens the blocks that hold the pair.

        Args:
            folder: a folder of tokens.
            index: its index.
            pair: source and target language.
            verify: compares each block with its SHA-256 when it is first read.

        Raises:
            ValueError: the folder holds no sentence of the pair.
        """
        self.pair, self._verify = pair, verify
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
        if self._verify:
            check_folder(self._folder, [self._blocks[number]["name"]])
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


class PairOrder:
    """The rows of each global batch of a pair.

    An epoch goes through neighbourhoods of some million rows in a random order. In each, rows are
    permuted, sorted by length within a hundred batches or so, and cut into batches, whose order is
    permuted again. Rows that fill no batch wait for another epoch.
    """

    def __init__(self, tokens: PairTokens, global_batch: int, seed: int) -> None:
        """Cuts the neighbourhoods.

        Args:
            tokens: the pair's.
            global_batch: rows of all processes.
            seed: the seed of all permutations.

        Raises:
            ValueError: the rows do not fill a batch.
        """
        if tokens.num_rows < global_batch:
            raise ValueError(
                f"{tokens.num_rows} sentence pairs of {'-'.join(tokens.pair)} do not fill one "
                f"batch of {global_batch}: lower train_batch_size, leave the pair out, or add text"
            )
        self.tokens, self.global_batch = tokens, global_batch
        self._seed = (seed, zlib.crc32("-".join(tokens.pair).encode()))
        count = max(1, tokens.num_rows // max(SHUFFLED_ROWS, global_batch))
        self._bounds = np.linspace(0, tokens.num_rows, count + 1).astype(np.int64)
        self._last: tuple[tuple[int, int], list[np.ndarray]] = ((-1, -1), [])

    def rows(self, number: int) -> np.ndarray:
        """The rows of the pair's batch of that number: (global_batch,), sorted by length."""
        sizes = np.diff(self._bounds) // self.global_batch
        epoch, position = divmod(number, int(sizes.sum()))
        order = np.random.default_rng([*self._seed, epoch]).permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        place = int(np.searchsorted(ends, position, side="right"))
        if self._last[0] != (epoch, int(order[place])):
            self._last = ((epoch, int(order[place])), self._cut(epoch, int(order[place])))
        return self._last[1][position - int(ends[place] - sizes[order[place]])]

    def _cut(self, epoch: int, neighbourhood: int) -> list[np.ndarray]:
        random = np.random.default_rng([*self._seed, epoch, neighbourhood])
        first, last = self._bounds[neighbourhood : neighbourhood + 2]
        rows = first + random.permutation(last - first)
        rows = rows[: len(rows) // self.global_batch * self.global_batch]
        batches = []
        for start in range(0, len(rows), SORTED_BATCHES * self.global_batch):
            window = rows[start : start + SORTED_BATCHES * self.global_batch]
            lengths = self.tokens.lengths(window)
            batches += np.split(window[_by_length(lengths)], len(window) // self.global_batch)
        return [batches[number] for number in random.permutation(len(batches))]


def _by_length(lengths: np.ndarray) -> np.ndarray:
    """The order of sentence pairs (n, 2) by the longer side, and among equals by the difference of
    the sides, rising and falling in turn, so that neighbours are alike on both sides. On Multi30K
    5 % of a batch of 96 is padding, against 11 % with an order by length alone and 54 % unsorted.
    """
    longer, difference = lengths.max(1), lengths[:, 0] - lengths[:, 1]
    return np.lexsort((np.where(longer % 2 == 0, difference, -difference), longer))


class TokenBatches:
    """Batches of a process from a folder of tokens.

    Attributes:
        pairs: the directions that train.
        shares: the probability of each, p ~ n^(1/T) of its n sentence pairs.
    """

    def __init__(
        self,
        folder: str | Path,
        pairs: Sequence[Pair],
        settings: TrainEncoderSettings,
        ranks: Ranks,
        pad: int,
    ) -> None:
        """Opens the folder.

        Args:
            folder: a folder of tokens.
            pairs: directions to translate in.
            settings: the run's: batch size, seed, and T, by which 1 draws pairs in proportion to
                their sentences and infinity evenly.
            ranks: this process among the others.
            pad: the id that fills rows.

        Raises:
            FileNotFoundError: no complete tokens.
            ValueError: a pair has too few sentences, or the temperature is not positive.
        """
        temperature, seed = settings.pair_temperature, settings.seed
        if not temperature > 0:
            raise ValueError(f"pair_temperature is {temperature}; it must be above 0")
        self.pairs, self._pad, self._ranks, self._seed = list(pairs), pad, ranks, seed
        index = read_index(folder)
        global_batch = settings.train_batch_size * ranks.world_size
        verify = settings.verify_data
        tokens = [PairTokens(folder, index, pair, verify=verify) for pair in pairs]
        self._orders = [PairOrder(own, global_batch, seed) for own in tokens]
        weights = np.array([own.num_rows for own in tokens]) ** (1 / temperature)
        self.shares = weights / weights.sum()

    def _draws(self, number: int) -> np.ndarray:
        """The pairs of the `number`-th `DRAWS_AT_A_TIME` micro-steps."""
        random = np.random.default_rng([self._seed, number])
        return random.choice(len(self.pairs), DRAWS_AT_A_TIME, p=self.shares)

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Endless batches from a micro-step on.

        Yields:
            `source_ids`, `source_mask` (B, L), `target_ids`, `target_mask` (B, M): int64, from <s>
            to </s>; `source_language`, `target_language`; `keys`.
        """
        round_number, place = divmod(start, DRAWS_AT_A_TIME)
        used = np.zeros(len(self.pairs), dtype=np.int64)
        for number in range(round_number):
            used += np.bincount(self._draws(number), minlength=len(self.pairs))
        draws = self._draws(round_number)
        used += np.bincount(draws[:place], minlength=len(self.pairs))
        while True:
            for chosen in draws[place:]:
                yield self._batch(self._orders[chosen], int(used[chosen]))
                used[chosen] += 1
            round_number, place = round_number + 1, 0
            draws = self._draws(round_number)

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """Source and record of each sentence pair of a batch, for messages."""
        return batch["keys"]

    def _batch(self, order: PairOrder, number: int) -> dict[str, Any]:
        rows, tokens = order.rows(number), order.tokens
        own = rows[self._ranks.rank :: self._ranks.world_size]  # each as long as the others' rows
        batch: dict[str, Any] = {"keys": tokens.keys(own)}
        for side, name in enumerate(("source", "target")):
            batch[f"{name}_ids"], batch[f"{name}_mask"] = tokens.ids(own, side, self._pad)
            batch[f"{name}_language"] = tokens.pair[side]
        return batch
