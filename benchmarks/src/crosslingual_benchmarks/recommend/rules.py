"""The rules of `recommend` as data: `criteria.json`, read and checked. A new rule is added there.

A number that a rule leans on is named by table, row and column of `published.json`, so that no
number is written twice.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crosslingual_benchmarks.published.tables import load_published

CRITERIA = Path(__file__).with_name("criteria.json")

CellName = list[str]  # table, row, column of published.json


@dataclass(frozen=True)
class MethodFacts:
    """What a method is, for the constraints.

    Attributes:
        name: the arm's name in result files.
        label: the name that people use.
        row: its row of the table `characteristics`.
        retrieves: whether pictures and texts share a space.
        generates: whether it draws pictures.
        per_language: whether it trains one model for each language.
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
        return self.size if fact == "size_mb" else ["characteristics", self.row, fact]


@dataclass(frozen=True)
class Wish:
    """A wish is active where its setting is true, or on the right side of a number.

    Attributes:
        measured: the metric of result lines that speaks of it.
        lost: `heading` and, by method, `cells` of the published numbers that are compared where the
            best method is excluded.
    """

    name: str
    setting: str
    says: str
    measured: str
    at_least: float = float("-inf")
    at_most: float = float("inf")
    lost: dict[str, Any] = field(default_factory=lambda: {"heading": "", "cells": {}})

    def is_active(self, value: bool | float | None) -> bool:
        """Whether a setting's value makes it a wish."""
        if value is None or isinstance(value, bool):
            return bool(value)
        return self.at_least <= value <= self.at_most


@dataclass(frozen=True)
class Constraint:
    """A constraint excludes a method whose fact is not at most the setting, at least it, or true.

    Attributes:
        scales: whether the fact is multiplied where a method trains one model for each language.
        unit: `$`, or a unit that is written behind a number.
    """

    setting: str
    fact: str
    rule: Literal["at_most", "at_least", "is_true"]
    scales: bool
    unit: str
    says: str


@dataclass(frozen=True)
class Criterion:
    """Points of a method where all wishes are active; without wishes, a caution for all answers."""

    wishes: list[str]
    method: str
    points: int
    reason: str
    evidence: list[CellName]


@dataclass(frozen=True)
class Conflict:
    """Wishes that pull apart; `is_split`: two methods may share them."""

    wishes: list[str]
    is_split: bool
    text: str


@dataclass(frozen=True)
class Rules:
    """All rules; `always` are remarks on every answer."""

    methods: Mapping[str, MethodFacts]
    wishes: Mapping[str, Wish]
    constraints: list[Constraint]
    criteria: list[Criterion]
    conflicts: list[Conflict]
    always: list[str]


def load_rules(path: str | Path = CRITERIA) -> Rules:
    """Reads and checks the rules.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a rule names a method, wish or published number that does not exist, or lacks a
            key; the rule is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no criteria at {path}: reinstall crosslingual-benchmarks")
    data = json.loads(path.read_text(encoding="utf-8"))
    try:
        rules = Rules(
            {name: MethodFacts(name, **entry) for name, entry in data["methods"].items()},
            {entry["name"]: Wish(**entry) for entry in data["wishes"]},
            [Constraint(**entry) for entry in data["constraints"]],
            [Criterion(**entry) for entry in data["criteria"]],
            [Conflict(**entry) for entry in data["conflicts"]],
            data["always"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a rule lacks or misnames {error}") from error
    _check(rules, path.name)
    return rules


def _check(rules: Rules, where: str) -> None:
    """Refuses rules that name what does not exist."""
    facts = [c.fact for c in rules.constraints if c.rule != "is_true"]
    cells = [(m.label, m.cell(fact)) for m in rules.methods.values() for fact in facts]
    for rule in rules.criteria:
        named = f"rule {rule.method}, {' and '.join(rule.wishes) or 'always'}"
        _check_names([rule.method], rules.methods, f"{where}, {named}")
        _check_names(rule.wishes, rules.wishes, f"{where}, {named}")
        if bool(rule.points) != bool(rule.wishes):
            raise ValueError(f"{where}, {named}: points need a wish, and a wish's rule points")
        cells += [(named, cell) for cell in rule.evidence]
    for wish in rules.wishes.values():
        _check_names(wish.lost["cells"], rules.methods, f"{where}, wish {wish.name}")
        cells += [(wish.name, cell) for cell in wish.lost["cells"].values()]
    for conflict in rules.conflicts:
        _check_names(conflict.wishes, rules.wishes, f"{where}, a conflict")
    for named, cell in cells:
        try:
            load_published().cell(*cell)
        except ValueError as error:
            raise ValueError(f"{where}, {named}: {error}") from error


def _check_names(names: Iterable[str], known: Mapping[str, Any], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is none of {', '.join(known)}")
