"""Numbers of result lines, with their intervals; which of a column is the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from crosslingual_benchmarks.report.document import Cell
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result, metric_of

Better = Literal["high", "low", ""]


@dataclass(frozen=True)
class Number:
    """A number and the ends of its 95 % interval, where that is known."""

    value: float
    low: float | None = None
    high: float | None = None

    def excludes(self, other: "Number") -> bool:
        """Whether both have intervals, and these share no point."""
        if None in (self.low, self.high, other.low, other.high):
            return False
        return self.low > other.high or self.high < other.low


@dataclass(frozen=True)
class Measure:
    """A column of numbers.

    Attributes:
        name: of the metric in result lines.
        head: of the column.
        scale: factor from a line's number to the shown one.
        decimals: digits that are shown after the point.
        better: which end is the better one; empty where neither is.
        is_exact: counted rather than estimated, so that it is ranked without an interval.
    """

    name: str
    head: str
    scale: float = 1.0
    decimals: int = 1
    better: Better = ""
    is_exact: bool = False

    def show(self, value: float) -> str:
        """The number as its column shows it."""
        return f"{value * self.scale:,.{self.decimals}f}"

    def cell(self, number: Number | None, is_best: bool = False) -> Cell:
        """A cell with its interval; a dash where there is no number."""
        if number is None:
            return Cell(DASH)
        if number.low is None or number.high is None:
            return Cell(self.show(number.value), "", is_best)
        interval = f"{self.show(number.low)}, {self.show(number.high)}"
        return Cell(self.show(number.value), interval, is_best)

    def column(self, numbers: Sequence[Number | None], competes: Sequence[bool]) -> list[Cell]:
        """The cells of a column, the best one marked.

        A bound does not compete: it is never the best.
        """
        rivals = [n if c else None for n, c in zip(numbers, competes, strict=True)]
        best = best_of(rivals, self.better, self.is_exact)
        return [self.cell(number, place == best) for place, number in enumerate(numbers)]


def number_of(result: Result, name: str) -> Number | None:
    """A metric of a line, or one of its top-level numbers such as `mean_recall`."""
    value = metric_of(result, name)
    if value is None:
        return None
    low, high = result.get("interval95", {}).get(name, (None, None))
    return Number(value, low, high)


def mean_number(numbers: Sequence[Number]) -> Number | None:
    """The mean over languages, within the means of their bounds.

    All languages describe the same scenes, so their errors are correlated. Whatever the dependence,
    the standard deviation of a mean is at most the mean of the standard deviations, and the mean of
    the bounds is as wide as that.

    Returns:
        None without numbers; a mean without an interval where a number has none.
    """
    if not numbers:
        return None
    value = sum(number.value for number in numbers) / len(numbers)
    lows = [number.low for number in numbers if number.low is not None]
    highs = [number.high for number in numbers if number.high is not None]
    if not len(lows) == len(highs) == len(numbers):
        return Number(value)
    return Number(value, sum(lows) / len(lows), sum(highs) / len(highs))


def over_seeds(values: Sequence[float]) -> Number | None:
    """The mean over seeds, from the lowest to the highest where there are several."""
    if not values:
        return None
    ends = (min(values), max(values)) if len(values) > 1 else ()
    return Number(sum(values) / len(values), *ends)


def best_of(numbers: Sequence[Number | None], better: Better, is_exact: bool) -> int | None:
    """The place of the number of a column that is better than every other.

    A counted number (`is_exact`) is ranked without an interval; an estimated one only where its
    interval shares no point with any other's.

    Returns:
        None where fewer than two compete, the first two are equal, or an interval overlaps or is
        missing.
    """
    places = [place for place, number in enumerate(numbers) if number is not None]
    if not better or len(places) < 2:
        return None
    sign = 1 if better == "high" else -1
    best = max(places, key=lambda place: sign * numbers[place].value)
    others = [numbers[place] for place in places if place != best]
    if is_exact:
        return best if all(other.value != numbers[best].value for other in others) else None
    return best if all(numbers[best].excludes(other) for other in others) else None
