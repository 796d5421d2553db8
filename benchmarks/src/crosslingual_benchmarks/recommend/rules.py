"""The rules of `recommend` as data: `criteria.json`, read and checked. A new rule is added there.

A number that a rule leans on is named by table, row and column of `published.json`, so that no
number is written twice.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crosslingual_benchmarks.published.tables import load_published

CRITERIA = Path(__file__).with_name("criteria.json")

KEYS = {
    "methods": {"label", "row", "retrieves", "generates", "per_language", "size"},
    "wishes": {"name", "setting", "says", "measured"},
    "constraints": {"setting", "fact", "rule", "scales", "unit", "says"},
    "criteria": {"wishes", "method", "points", "reason", "evidence"},
    "conflicts": {"wishes", "is_split", "text"},
}
"""What each kind of rule has; `about` of criteria.json says what the keys mean."""

OPTIONAL = {"at_least", "at_most", "lost"}  # of a wish

Rules = dict[str, Any]
"""`criteria.json` with its wishes by name."""


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
    rules: Rules = json.loads(path.read_text(encoding="utf-8"))
    for kind, keys in KEYS.items():
        for entry in rules[kind].values() if kind == "methods" else rules[kind]:
            if wrong := (keys ^ set(entry)) - OPTIONAL:
                raise ValueError(f"{path}: one of {kind} lacks or misnames {sorted(wrong)[0]}")
    rules["wishes"] = {wish["name"]: wish for wish in rules["wishes"]}
    _check(rules, path.name)
    return rules


def fact_cell(method: dict[str, Any], fact: str) -> list[str]:
    """Where the published number of a constraint's fact stands."""
    return method["size"] if fact == "size_mb" else ["characteristics", method["row"], fact]


def is_active(wish: dict[str, Any], value: bool | float | None) -> bool:
    """Whether a setting's value makes it a wish: it is true, or on the right side of a number."""
    if value is None or isinstance(value, bool):
        return bool(value)
    return wish.get("at_least", value) <= value <= wish.get("at_most", value)


def _check(rules: Rules, where: str) -> None:
    """Refuses rules that name what does not exist."""
    methods, wishes = rules["methods"], rules["wishes"]
    facts = [c["fact"] for c in rules["constraints"] if c["rule"] != "is_true"]
    cells = [(m["label"], fact_cell(m, fact)) for m in methods.values() for fact in facts]
    for rule in rules["criteria"]:
        named = f"rule {rule['method']}, {' and '.join(rule['wishes']) or 'always'}"
        _check_names([rule["method"]], methods, f"{where}, {named}")
        _check_names(rule["wishes"], wishes, f"{where}, {named}")
        if bool(rule["points"]) != bool(rule["wishes"]):
            raise ValueError(f"{where}, {named}: points need a wish, and a wish's rule points")
        cells += [(named, cell) for cell in rule["evidence"]]
    for name, wish in wishes.items():
        lost = wish.get("lost", {"cells": {}})["cells"]
        _check_names(lost, methods, f"{where}, wish {name}")
        cells += [(name, cell) for cell in lost.values()]
    for conflict in rules["conflicts"]:
        _check_names(conflict["wishes"], wishes, f"{where}, a conflict")
    for named, cell in cells:
        try:
            load_published().cell(*cell)
        except ValueError as error:
            raise ValueError(f"{where}, {named}: {error}") from error


def _check_names(names: Iterable[str], known: dict[str, Any], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is none of {', '.join(known)}")
