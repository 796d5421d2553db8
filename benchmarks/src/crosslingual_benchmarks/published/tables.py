"""Published numbers: the survey's tables as data, with each number's source and strength.

    for row in load_published().tables["2"].rows:
        print(row.method, row.cells["average"].text, row.cells["average"].strength)

All of them are in `published.json`, and no measured number is. A range, a bound or an approximation
stays one: `Quantity.point()` refuses to make `<$1k` or `~65*` a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Required

from typing_extensions import TypedDict

from crosslingual.cli.settings import nearest_name
from crosslingual.data.text import read_json
from crosslingual_benchmarks.published.entries import Column, Quantity, Reference, Row, Table
from crosslingual_benchmarks.reading import check_shape

PUBLISHED = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """All tables by name: 1 to 6 of the survey's paper, and `efficiency` (its README),
    `characteristics` (its section 3), `counted` (code, abstracts and a replication).
    """

    references: Mapping[str, Reference]
    tables: Mapping[str, Table]

    def cell(self, table: str, method: str, column: str) -> Quantity:
        """One number.

        Raises:
            ValueError: no such table, row or column; the nearest name is offered.
        """
        rows = {row.method: row for row in _pick(self.tables, table, "published table").rows}
        row = _pick(rows, method, f"row in published table {table}")
        return _pick(row.cells, column, f"column in published table {table}")


class _Cell(TypedDict, total=False):
    low: float | None
    high: float | None
    text: Required[str]
    strength: str
    note: str


class _Row(TypedDict, total=False):
    method: Required[str]
    strength: Required[str]
    references: Required[list[str]]
    cells: Required[dict[str, float | _Cell]]
    arm: str | None
    note: str


class _Table(TypedDict):
    name: str
    title: str
    origin: str
    columns: list[dict[str, str]]
    rows: list[_Row]
    what_cannot_be_compared: list[str]


class _File(TypedDict):
    references: dict[str, dict[str, str | None]]
    tables: list[_Table]


@cache
def load_published(path: Path = PUBLISHED) -> Published:
    """Reads the published tables, whose rules the tests check.

    Raises:
        ValueError: the file lacks something, or holds a value of the wrong type.
    """
    data = read_json(path)
    check_shape(_File, data, str(path))
    try:
        references = {key: Reference(key, **entry) for key, entry in data["references"].items()}
        tables = {entry["name"]: _table(**entry) for entry in data["tables"]}
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
    return Published(MappingProxyType(references), MappingProxyType(tables))


def _table(columns: list[dict[str, str]], rows: list[_Row], **entries: Any) -> Table:
    columns = tuple(Column(**column) for column in columns)
    names = [column.name for column in columns]
    rows = tuple(_row(entries["name"], names, row) for row in rows)
    entries["what_cannot_be_compared"] = tuple(entries["what_cannot_be_compared"])
    return Table(columns=columns, rows=rows, **entries)


def _row(table: str, columns: list[str], row: _Row) -> Row:
    """A cell that the file leaves out is a dash; one that is a number alone is that number."""
    found = {}
    for name in columns:
        cell = row["cells"].get(name, {"text": "-"})
        if not isinstance(cell, dict):
            cell = {"low": cell, "high": cell, "text": str(cell)}
        found[name] = Quantity(**{"low": None, "high": None, "strength": row["strength"], **cell})
    further = {"references": tuple(row["references"]), "cells": MappingProxyType(found)}
    return Row(**{"arm": None, "note": "", **row, "table": table, **further})


def _pick(entries: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in entries:
        near = nearest_name(name, list(entries)) or f"; there are {', '.join(entries)}"
        raise ValueError(f"no {kind} named {name!r}{near}")
    return entries[name]
