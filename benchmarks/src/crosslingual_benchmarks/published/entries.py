"""Published numbers: quantities with source and strength, in the rows of tables."""

from collections.abc import Mapping
from dataclasses import dataclass

from crosslingual_benchmarks.published.spans import Span

STRENGTHS = {
    "paper table": "a result table of the cited paper, as the survey quotes it",
    "abstract": "the cited work's abstract says it",
    "code": "read in the method's published code",
    "calculated": "computed from code, or from numbers that stand elsewhere here",
    "inferred": "this project's inference",
    "secondary": "a third party's account, which may be wrong",
    "estimated": "the survey's own estimate, without a source",
    "unsupported": "stands in the survey alone: no source that was found says it",
}
"""Tags and their meanings, from strong to weak."""


@dataclass(frozen=True)
class Quantity:
    """A number as it was published.

    Attributes:
        low: the least it says, None where it names no lower bound.
        high: the most it says, None where it names no upper bound.
        text: as it was written, such as `<$1k`.
        strength: one of `STRENGTHS`.
        note: what is known against it or about it.
    """

    low: float | None
    high: float | None
    text: str
    strength: str
    note: str = ""

    @property
    def span(self) -> Span:
        """Its bounds."""
        return self.low, self.high

    @property
    def is_approximate(self) -> bool:
        """Whether it says `about`: its bounds are where it stands, not how far it reaches."""
        return "~" in self.text or "*" in self.text

    @property
    def is_point(self) -> bool:
        """Whether it is one number, neither a range, a bound nor an approximation."""
        return self.low is not None and self.low == self.high and not self.is_approximate

    def point(self) -> float:
        """The one number that it is.

        Raises:
            ValueError: it is a range, a bound, an approximation or no number.
        """
        if self.low is None or not self.is_point:
            raise ValueError(f"'{self.text}' is not one number; take its low, its high or its text")
        return self.low


@dataclass(frozen=True)
class Reference:
    """A cited work: its key is the survey's number where it has one.

    Attributes:
        resolved_by: how the survey's number was found to mean this work.
    """

    key: str
    title: str
    authors: str
    venue: str
    arxiv: str | None
    url: str | None
    resolved_by: str

    @property
    def citation(self) -> str:
        """Authors, title, venue and where it stands, in a line."""
        place = f"arXiv {self.arxiv}" if self.arxiv else self.url or ""
        return ", ".join(part for part in (self.authors, self.title, self.venue, place) if part)


@dataclass(frozen=True)
class Column:
    """A column: its key in a row's cells, its heading, its unit."""

    name: str
    heading: str
    unit: str


@dataclass(frozen=True)
class Row:
    """A row: the method as the table calls it, our arm of that kind or None, its cells by column.

    Attributes:
        strength: of the cells that say nothing else.
        references: keys of `Published.references`.
    """

    table: str
    method: str
    arm: str | None
    references: tuple[str, ...]
    strength: str
    note: str
    cells: Mapping[str, Quantity]


@dataclass(frozen=True)
class Table:
    """A table. `what_cannot_be_compared` says, a sentence each, which of its numbers cannot be
    compared with numbers measured here.
    """

    name: str
    title: str
    origin: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    what_cannot_be_compared: tuple[str, ...]
