"""The rules of `recommend` as data: wishes, constraints and criteria of `criteria.json`, checked.

A rule is added there. Each number that a rule leans on is named by table, row and column of
`published.json`, so none is written twice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crosslingual_benchmarks.published import load_published

CRITERIA = Path(__file__).with_name("criteria.json")

CellName = tuple[str, str, str]  # table, row, column of published.json


@dataclass(frozen=True)
class MethodFacts:
    """What a method is, for the constraints.

    Attributes:
        name: the arm's name in result files.
        label: as people call it.
        row: its row of the table `characteristics`.
        retrieves: whether pictures and texts share a space.
        generates: whether it draws.
        per_language: whether it trains a model a language.
        size: the cell with the MB to ship.
    """

    name: str
    label: str
    row: str
    retrieves: bool
    generates: bool
    per_language: bool
    size: CellName

    def cell(self, fact: str) -> CellName:
        """Where the published number of a constraint's fact stands."""
        return self.size if fact == "size_mb" else ("characteristics", self.row, fact)


@dataclass(frozen=True)
class Wish:
    """Something wished for: active where its setting is true, or on the right side of a number.

    Attributes:
        measured: the metric of result lines that speaks of it.
        lost_heading: of the published numbers that are compared where the best cannot be had.
        lost_cells: these, by method.
    """

    name: str
    setting: str
    says: str
    measured: str
    at_least: float | None
    at_most: float | None
    lost_heading: str
    lost_cells: Mapping[str, CellName]

    def is_active(self, value: bool | float | None) -> bool:
        """Whether a setting's value makes it a wish."""
        if value is None or isinstance(value, bool):
            return bool(value)
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Constraint:
    """What excludes: a fact against a setting.

    Attributes:
        rule: the fact is at most the setting, at least the setting, or true.
        scales: whether a method of a model a language multiplies the fact.
        unit: `$`, or one that is written behind a number.
    """

    setting: str
    fact: str
    rule: Literal["at_most", "at_least", "is_true"]
    scales: bool
    unit: str
    says: str


@dataclass(frozen=True)
class Criterion:
    """Points of a method where all wishes are active; none: always told, and against it."""

    wishes: tuple[str, ...]
    method: str
    points: int
    reason: str
    evidence: tuple[CellName, ...]


@dataclass(frozen=True)
class Conflict:
    """Wishes that pull apart; `is_split`: two methods may share them."""

    wishes: tuple[str, ...]
    is_split: bool
    text: str


@dataclass(frozen=True)
class Criteria:
    """All rules."""

    methods: Mapping[str, MethodFacts]
    wishes: Mapping[str, Wish]
    constraints: tuple[Constraint, ...]
    criteria: tuple[Criterion, ...]
    conflicts: tuple[Conflict, ...]
    always: tuple[str, ...]


def load_criteria(path: str | Path = CRITERIA) -> Criteria:
    """Reads and checks the rules.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a rule names a method, wish or published number that is not there, or lacks a
            key; the rule is named.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no criteria at {path}: reinstall crosslingual-benchmarks")
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        read = _read(data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a rule lacks or misnames {error}") from error
    _check(read, Path(path).name)
    return read


def _read(data: dict[str, Any]) -> Criteria:
    return Criteria(
        methods={
            name: MethodFacts(**{**entry, "name": name, "size": tuple(entry["size"])})
            for name, entry in data["methods"].items()
        },
        wishes={entry["name"]: _wish(**entry) for entry in data["wishes"]},
        constraints=tuple(Constraint(**entry) for entry in data["constraints"]),
        criteria=tuple(
            Criterion(
                **{
                    **entry,
                    "wishes": tuple(entry["wishes"]),
                    "evidence": tuple(tuple(cell) for cell in entry["evidence"]),
                }
            )
            for entry in data["criteria"]
        ),
        conflicts=tuple(
            Conflict(tuple(entry["wishes"]), entry["split"], entry["text"])
            for entry in data["conflicts"]
        ),
        always=tuple(data["always"]),
    )


def _wish(
    name: str,
    setting: str,
    says: str,
    measured: str,
    at_least: float | None = None,
    at_most: float | None = None,
    lost: dict[str, Any] | None = None,
) -> Wish:
    lost = lost or {"heading": "", "cells": {}}
    cells = {method: tuple(cell) for method, cell in lost["cells"].items()}
    return Wish(name, setting, says, measured, at_least, at_most, lost["heading"], cells)


def _check(read: Criteria, where: str) -> None:
    published = load_published()
    facts = [c.fact for c in read.constraints if c.rule != "is_true"]
    cells = [
        (facts_of.label, facts_of.cell(f)) for facts_of in read.methods.values() for f in facts
    ]
    for rule in read.criteria:
        named = f"rule {rule.method}, {' and '.join(rule.wishes) or 'always'}"
        _known(read.methods, [rule.method], f"{where}, {named}")
        _known(read.wishes, rule.wishes, f"{where}, {named}")
        if bool(rule.points) != bool(rule.wishes):
            raise ValueError(f"{where}, {named}: points need a wish, and a wish's rule points")
        cells += [(named, cell) for cell in rule.evidence]
    for wish in read.wishes.values():
        _known(read.methods, wish.lost_cells, f"{where}, wish {wish.name}")
        cells += [(wish.name, cell) for cell in wish.lost_cells.values()]
    for conflict in read.conflicts:
        _known(read.wishes, conflict.wishes, f"{where}, a conflict")
    for named, cell in cells:
        try:
            published.cell(*cell)
        except ValueError as error:
            raise ValueError(f"{where}, {named}: {error}") from error


def _known(names: Mapping[str, Any], told: Any, where: str) -> None:
    for name in told:
        if name not in names:
            raise ValueError(f"{where}: {name!r} is none of {', '.join(names)}")
