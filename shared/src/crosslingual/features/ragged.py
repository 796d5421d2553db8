"""Rows of different lengths as one flat tensor: token states of captions, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# B rows, T entries of all rows one after another, D whatever an entry has


@dataclass(frozen=True)
class Ragged:
    """B rows of different lengths.

    Attributes:
        values: (T, ...), row after row.
        lengths: (B,) int64, the entries of each row; they add up to T.
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        """Refuses lengths of other values."""
        if int(self.lengths.sum()) != len(self.values):
            raise ValueError(
                f"rows of {int(self.lengths.sum())} entries in all do not fit {len(self.values)}"
            )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lengths)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Ragged":
        """The rows on a device, the values in another type if one is given."""
        return Ragged(self.values.to(device, dtype), self.lengths.to(device))

    def select(self, rows: Tensor) -> "Ragged":
        """The given rows (int64, one or more times each), in that order, by one gather."""
        starts = self.lengths.cumsum(0) - self.lengths
        lengths = self.lengths[rows]
        shifts = starts[rows] - (lengths.cumsum(0) - lengths)
        total = int(lengths.sum())
        places = torch.repeat_interleave(shifts, lengths, output_size=total)
        places += torch.arange(total, device=lengths.device)
        return Ragged(self.values.index_select(0, places), lengths)

    def rows(self) -> tuple[Tensor, ...]:
        """Each row by itself, as views."""
        return self.values.split(self.lengths.tolist())


def concatenate(parts: Sequence[Ragged]) -> Ragged:
    """The rows of several, one after another."""
    return Ragged(
        torch.cat([part.values for part in parts]), torch.cat([part.lengths for part in parts])
    )
