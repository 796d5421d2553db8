"""The survey's tables: published numbers, in sections that look different from measured ones."""

from collections.abc import Sequence

from crosslingual_benchmarks.published.entries import STRENGTHS
from crosslingual_benchmarks.published.entries import Row as PublishedRow
from crosslingual_benchmarks.published.entries import Table as PublishedTable
from crosslingual_benchmarks.published.tables import load_published
from crosslingual_benchmarks.report.arms import LABELS
from crosslingual_benchmarks.report.document import Cell, Section, Table
from crosslingual_benchmarks.report.tables import DASH

HEADING = "Published, not measured here"


def published_section(names: Sequence[str], beside: str) -> Section:
    """A section of published tables; `beside` names the report's part that measures the same."""
    published = load_published()
    tables = [published.tables[name] for name in names]
    cited = {key: None for table in tables for row in table.rows for key in row.references}
    strengths = {
        cell.strength: None for table in tables for row in table.rows for cell in row.cells.values()
    }
    numbers = " and ".join(names)
    text = (
        f"Quoted from others, and never mixed with the numbers above. Small print in a cell: a "
        f"strength other than the row's. {'Tables' if len(names) > 1 else 'Table'} {numbers} of "
        "the paper that this project implements."
    )
    meanings = [f"{name}: {STRENGTHS[name]}." for name in STRENGTHS if name in strengths]
    return Section(
        f"published_{'_'.join(names)}",
        f"{HEADING}: {beside}",
        [text],
        [_table(table) for table in tables],
        sources=[f"[{key}] {published.references[key].citation}" for key in cited],
        cautions=[doubt for table in tables for doubt in table.what_cannot_be_compared],
        notes=[*meanings, *(note for table in tables for note in _notes(table))],
        is_published=True,
    )


def _table(table: PublishedTable) -> Table:
    units = {column.unit for column in table.columns}
    is_one = len(units) == 1
    heads = ["method", *(_head(c.heading, "" if is_one else c.unit) for c in table.columns)]
    rows = [
        [
            Cell(row.method),
            *(_quantity(row, column.name) for column in table.columns),
            Cell(row.strength),
            Cell("".join(f"[{key}]" for key in row.references) or DASH),
            Cell(LABELS.get(row.arm, row.arm) if row.arm else DASH),
        ]
        for row in table.rows
    ]
    return Table(
        f"published_{table.name}",
        f"Table {table.name}: {table.title} (published)",
        [*heads, "strength", "sources", "arm of its kind here"],
        rows,
        note=f"From: {table.origin}.{f' All in {units.pop()}.' if is_one else ''}",
    )


def _head(heading: str, unit: str) -> str:
    is_told = unit.lower().replace("-", " ") in heading.lower()
    return heading if is_told else f"{heading}, {unit}"


def _quantity(row: PublishedRow, column: str) -> Cell:
    quantity = row.cells[column]
    is_other = quantity.strength != row.strength and quantity.text != DASH
    return Cell(quantity.text, quantity.strength if is_other else "")


def _notes(table: PublishedTable) -> list[str]:
    notes = []
    for row in table.rows:
        where = f"Table {table.name}, {row.method}"
        if row.note:
            notes.append(f"{where}: {row.note}")
        for column in table.columns:
            note = row.cells[column.name].note
            if note:
                notes.append(f"{where}, {column.heading}: {note}")
    return notes
