"""The order of samples: a pure function of (seed, epoch), so that a resume costs nothing."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

WINDOW_SAMPLES = 65_536
WINDOW_SHARDS = 64


class SampleOrder:
    """Says which sample of which shard stands at a position of an epoch.

    Shards are permuted by (seed, epoch); then samples are permuted within a window of neighbouring
    shards, some 65,000 samples or 64 shards, so that reading stays local however many there are.
    """

    def __init__(self, sizes: Sequence[int], seed: int | None):
        """Keeps the samples of each shard, and the permutations' seed; None leaves all in order."""
        self.sizes, self.seed = list(sizes), seed
        self.num_samples = sum(sizes)
        self._epoch, self._window = -1, (-1, -1)

    def locate(self, epoch: int, position: int) -> tuple[int, int]:
        """Returns (shard, sample within it) at `position` < `num_samples` of an epoch."""
        if self._epoch != epoch:
            self._open_epoch(epoch)
        window = bisect_right(self._starts, position) - 1
        if self._window != (epoch, window):
            self._open_window(epoch, window)
        flat = int(self._samples[position - self._starts[window]])
        place = bisect_right(self._ends, flat)
        shard = self._windows[window][place]
        return shard, flat - (self._ends[place] - self.sizes[shard])

    def _open_epoch(self, epoch: int) -> None:
        windows: list[list[int]] = [[]]
        num_samples = 0
        for shard in self._permutation(len(self.sizes), epoch, 0).tolist():
            if num_samples >= WINDOW_SAMPLES or len(windows[-1]) == WINDOW_SHARDS:
                windows.append([])
                num_samples = 0
            windows[-1].append(shard)
            num_samples += self.sizes[shard]
        totals = [sum(self.sizes[shard] for shard in window) for window in windows]
        self._windows, self._starts = windows, [0, *accumulate(totals[:-1])]
        self._epoch = epoch

    def _open_window(self, epoch: int, window: int) -> None:
        self._ends = list(accumulate(self.sizes[shard] for shard in self._windows[window]))
        self._samples = self._permutation(self._ends[-1], epoch, window + 1)
        self._window = (epoch, window)

    def _permutation(self, size: int, epoch: int, stream: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(size)
        return np.random.default_rng([self.seed, epoch, stream]).permutation(size)
