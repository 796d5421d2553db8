"""Published numbers: the survey's tables as data, with each number's source and strength.

    for row in load_published().tables["2"].rows:
        print(row.method, row.cells["average"].text, row.cells["average"].strength)

They stand in `published.json` and nowhere else. Nothing measured here is written there, and result
files hold none of them. A range, a bound or an approximation stays one: `Quantity.point()` refuses
to make `<$1k` or `~65*` a number.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crosslingual.cli.settings import nearest_name
from crosslingual_benchmarks.published.entries import (
    STRENGTHS,
    Column,
    Quantity,
    Reference,
    Row,
    Table,
)

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


def load_published(path: str | Path = PUBLISHED) -> Published:
    """Reads and checks the published tables.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, or an entry breaks a rule; its place is named.
    """
    return _load(Path(path))


@cache
def _load(path: Path) -> Published:
    if not path.is_file():
        raise FileNotFoundError(
            f"no published numbers at {path}: reinstall crosslingual-benchmarks"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    where = path.name
    references = {
        key: Reference(key=key, **_fields(entry, Reference, {"key"}, f"{where}, reference {key}"))
        for key, entry in _field(data, "references", dict, where).items()
    }
    tables: dict[str, Table] = {}
    for entry in _field(data, "tables", list, where):
        table = _table(entry, references, where)
        if table.name in tables:
            raise ValueError(f"{where} has two tables {table.name}: rename one")
        tables[table.name] = table
    return Published(MappingProxyType(references), MappingProxyType(tables))


def _table(entry: Any, references: Mapping[str, Reference], where: str) -> Table:
    name = _field(entry, "name", str, where)
    where = f"{where}, table {name}"
    columns = tuple(
        Column(**_fields(column, Column, set(), f"{where}, a column"))
        for column in _field(entry, "columns", list, where)
    )
    rows = tuple(
        _row(row, name, [column.name for column in columns], references, where)
        for row in _field(entry, "rows", list, where)
    )
    _check_keys(entry, Table, where)
    methods = [row.method for row in rows]
    if len(set(methods)) != len(methods):
        raise ValueError(f"{where} has two rows of one method: {', '.join(methods)}")
    doubts = tuple(_field(entry, "what_cannot_be_compared", list, where))
    if not doubts:
        raise ValueError(f"{where} must say what_cannot_be_compared, a sentence or more")
    title, origin = (_field(entry, key, str, where) for key in ("title", "origin"))
    return Table(name, title, origin, columns, rows, doubts)


def _row(
    entry: Any, table: str, columns: list[str], references: Mapping[str, Reference], where: str
) -> Row:
    method = _field(entry, "method", str, where)
    where = f"{where}, row {method}"
    strength = _strength(_field(entry, "strength", str, where), where)
    cited = tuple(_field(entry, "references", list, where))
    for key in cited:
        _pick(references, key, f"reference ({where})")
    cells = {}
    told = _field(entry, "cells", dict, where)
    for name in (*columns, *told):
        if name not in columns:
            raise ValueError(f"{where}: no column {name!r}{nearest_name(name, columns)}")
        cells[name] = _quantity(told.get(name, {"text": "-"}), strength, f"{where}, {name}")
    _check_keys(entry, Row, where)
    arm, note = entry.get("arm"), entry.get("note", "")
    return Row(table, method, arm, cited, strength, note, MappingProxyType(cells))


def _quantity(entry: Any, strength: str, where: str) -> Quantity:
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        entry = {"low": entry, "high": entry, "text": str(entry)}
    text = _field(entry, "text", str, where)
    _check_keys(entry, Quantity, where)
    low, high = entry.get("low"), entry.get("high")
    for bound in (low, high):
        is_number = isinstance(bound, (int, float)) and not isinstance(bound, bool)
        if bound is not None and not (is_number and math.isfinite(bound)):
            raise ValueError(f"{where}: a bound must be a finite number or null, not {bound!r}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"{where}: low {low} is above high {high}")
    if (text[0] == "<" and low is not None) or (text[0] == ">" and high is not None):
        raise ValueError(f"{where}: '{text}' names one bound, and the entry gives two")
    told = _strength(entry.get("strength", strength), where)
    return Quantity(low, high, text, told, entry.get("note", ""))


def _strength(name: str, where: str) -> str:
    if name not in STRENGTHS:
        raise ValueError(f"{where}: no strength {name!r}{nearest_name(name, list(STRENGTHS))}")
    return name


def _field(entry: Any, name: str, kind: type, where: str) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or (kind is str and not value):
        raise ValueError(f"{where}: {name!r} must be a {kind.__name__}, not {value!r}")
    return value


def _check_keys(entry: dict[str, Any], cls: type, where: str) -> None:
    names = list(cls.__dataclass_fields__)
    for key in entry:
        if key not in names:
            raise ValueError(f"{where}: unknown key {key!r}{nearest_name(key, names)}")


def _fields(entry: Any, cls: type, without: set[str], where: str) -> dict[str, Any]:
    names = set(cls.__dataclass_fields__) - without
    if not isinstance(entry, dict) or set(entry) != names:
        raise ValueError(f"{where} must have the keys {', '.join(sorted(names))}")
    return entry


def _pick(entries: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in entries:
        near = nearest_name(name, list(entries)) or f"; there are {', '.join(entries)}"
        raise ValueError(f"no {kind} named {name!r}{near}")
    return entries[name]
