"""Published numbers: the survey's tables as data, with each number's source and strength.

    for row in load_published().tables["2"].rows:
        print(row.method, row.cells["average"].text, row.cells["average"].strength)

They stand in `published.json` and nowhere else. Nothing measured here is written there, and result
files hold none of them. A range, a bound or an approximation stays one: `Quantity.point()` refuses
to make `<$1k` or `~65*` a number.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crosslingual.cli.settings import nearest_name
from crosslingual_benchmarks.published.entries import Column, Quantity, Reference, Row, Table

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


@cache
def load_published() -> Published:
    """Reads the published tables, whose rules the tests check."""
    data = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    references = {key: Reference(key, **entry) for key, entry in data["references"].items()}
    tables = {entry["name"]: _table(**entry) for entry in data["tables"]}
    return Published(MappingProxyType(references), MappingProxyType(tables))


def _table(
    name: str,
    title: str,
    origin: str,
    columns: list[dict[str, str]],
    rows: list[dict[str, Any]],
    what_cannot_be_compared: list[str],
) -> Table:
    columns = tuple(Column(**column) for column in columns)
    rows = tuple(_row(name, [column.name for column in columns], **row) for row in rows)
    return Table(name, title, origin, columns, rows, tuple(what_cannot_be_compared))


def _row(
    table: str,
    columns: list[str],
    method: str,
    strength: str,
    references: list[str],
    cells: dict[str, Any],
    arm: str | None = None,
    note: str = "",
) -> Row:
    """A cell that the file leaves out is a dash; one that is a number alone is that number."""
    found = {}
    for name in columns:
        cell = cells.get(name, {"text": "-"})
        if not isinstance(cell, dict):
            cell = {"low": cell, "high": cell, "text": str(cell)}
        found[name] = Quantity(**{"low": None, "high": None, "strength": strength, **cell})
    return Row(table, method, arm, tuple(references), strength, note, MappingProxyType(found))


def _pick(entries: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in entries:
        near = nearest_name(name, list(entries)) or f"; there are {', '.join(entries)}"
        raise ValueError(f"no {kind} named {name!r}{near}")
    return entries[name]
