"""The parts of a report, before it is HTML, Markdown or LaTeX."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: of the cell.
        aside: small print: the 95 % interval of a measured number, or the strength of a quoted one.
        is_best: whether it is better than all other rows of its column.
        is_code: whether the text is words for a terminal.
        names: the language whose code the text is, so that a page can add the language's own name.
        language: of the text, BCP-47, where it is not English.
    """

    text: str
    aside: str = ""
    is_best: bool = False
    is_code: bool = False
    names: str = ""
    language: str = ""

    def plain(self) -> str:
        """The cell in one line, for Markdown and LaTeX: the best of a column ends in a star."""
        return f"{self.text}{f' [{self.aside}]' if self.aside else ''}{' *' * self.is_best}"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: names its files; unique in the report.
        title: its caption.
        heads: one a column.
        rows: cells, one a column.
        num_head_cells: how many cells at the start of a row name the row.
        reference_rows: numbers of the rows that are a bound, which does not compete.
        note: text below the table.
        is_folded: whether it is a long table, which a page shows on demand.
    """

    key: str
    title: str
    heads: list[str]
    rows: list[list[Cell]]
    num_head_cells: int = 1
    reference_rows: frozenset[int] = frozenset()
    note: str = ""
    is_folded: bool = False

    @property
    def has_best(self) -> bool:
        """Whether any cell is marked as the best of its column."""
        return any(cell.is_best for row in self.rows for cell in row)

    @property
    def has_asides(self) -> bool:
        """Whether any cell has small print."""
        return any(cell.aside for row in self.rows for cell in row)


@dataclass(frozen=True)
class Figure:
    """A picture.

    Its key names its file and is unique in the report.
    """

    key: str
    title: str
    alt: str
    png: bytes
    is_folded: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels (PNG, third edition, 11.2.1: the first chunk holds them)."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading.

    Its key is its anchor, unique in the report. `cautions` say what cannot be compared; `notes` are
    on single numbers, and a page shows them on demand.
    """

    key: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_published: bool = False


@dataclass(frozen=True)
class Document:
    """A report: a heading, paragraphs on the result lines, and sections."""

    title: str
    paragraphs: list[str]
    sections: list[Section]
