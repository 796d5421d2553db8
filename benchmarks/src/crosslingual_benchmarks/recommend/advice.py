"""Applies the rules of `criteria.json` to wishes; equal wishes give equal answers.

Constraints exclude. Criteria whose wishes are all active add points. Ties go to the method with
fewer open doubts, then to the cheaper one, then to the one that trains fewer parameters. A new rule
is added in `criteria.json`, whose `about` explains its keys. A rule names the numbers that support
it by table, row and column of `published.json`, so that no number is written twice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Required

from typing_extensions import TypedDict

from crosslingual.data.text import read_json
from crosslingual_benchmarks.published.spans import Span, span_text
from crosslingual_benchmarks.published.tables import load_published
from crosslingual_benchmarks.reading import check_shape

CRITERIA = Path(__file__).with_name("criteria.json")
Cell = list[str]  # table, row and column of a published number
Entry = dict[str, Any]  # a part of the rules or of the answer, as in its JSON
Reasons = list[Entry]  # each {"text": ..., "evidence": [published numbers, see `_evidence`]}


class _Method(TypedDict):
    label: str
    row: str
    retrieves: bool
    generates: bool
    per_language: bool
    size: Cell


class _Lost(TypedDict):
    heading: str
    cells: dict[str, Cell]


class _Wish(TypedDict, total=False):
    name: Required[str]
    setting: Required[str]
    says: Required[str]
    measured: Required[str]
    at_least: float
    at_most: float
    lost: _Lost


class _Constraint(TypedDict):
    setting: str
    fact: str
    rule: Literal["at_most", "at_least", "is_true"]
    scales: bool
    unit: str
    says: str


class _Criterion(TypedDict):
    wishes: list[str]
    method: str
    points: int
    reason: str
    evidence: list[Cell]


class _Conflict(TypedDict):
    wishes: list[str]
    is_split: bool
    text: str


class _Rules(TypedDict):
    methods: dict[str, _Method]
    wishes: list[_Wish]
    constraints: list[_Constraint]
    criteria: list[_Criterion]
    conflicts: list[_Conflict]
    always: list[str]


def load_rules(path: Path = CRITERIA) -> Entry:
    """Reads `criteria.json`; its wishes are by name.

    Raises:
        ValueError: a rule lacks something, is of the wrong type, or names no method or wish.
    """
    rules = read_json(path)
    check_shape(_Rules, rules, str(path))
    rules |= {"wishes": {wish["name"]: wish for wish in rules["wishes"]}}
    named = {name for rule in rules["criteria"] + rules["conflicts"] for name in rule["wishes"]}
    unknown = named - rules["wishes"].keys()
    unknown |= {rule["method"] for rule in rules["criteria"]} - rules["methods"].keys()
    if unknown:
        raise ValueError(f"{path}: no wish or method {', '.join(sorted(unknown))}")
    return rules


def is_active(wish: Entry, value: bool | float | None) -> bool:
    """Whether a setting's value makes it a wish: it is true, or on the right side of a number."""
    if value is None or isinstance(value, bool):
        return bool(value)
    return wish.get("at_least", value) <= value <= wish.get("at_most", value)


def advise(wishes: Entry, rules: Entry | None = None) -> Entry:
    """Ranks the methods for wishes: settings of `RecommendSettings` to values, None for no wish.

    Returns:
        - wishes: in words.
        - ranking: the best method first, each with method, label, points, reasons_for,
          reasons_against, and the doubts that published numbers leave open.
        - excluded: method, label and the reasons of each that breaks a constraint.
        - compromises: each wish whose best method is excluded, with excluded_by, the nearest method
          that is not, and what is lost by it.
        - conflicts: which wishes pull apart.
        - shares: for wishes that two methods may share, the best method of each and its cost.
        - remarks: they hold for every answer.

    Raises:
        ValueError: nothing is wished for, or a number is below 0.
    """
    rules = rules or load_rules()
    numbers = {n: v for n, v in wishes.items() if v is not None and not isinstance(v, bool)}
    if wrong := [name for name, value in numbers.items() if not value >= 0]:
        raise ValueError(f"{wrong[0]} is {numbers[wrong[0]]}: it must be 0 or more")
    told = rules["wishes"].items()
    active = {name: w for name, w in told if is_active(w, wishes.get(w["setting"]))}
    if not active and not any(wishes.get(c["setting"]) for c in rules["constraints"]):
        raise ValueError("nothing is wished for: give a wish such as --languages 18 or --culture")
    ranking, excluded = [], []
    for name, method in rules["methods"].items():
        broken, doubts = _judge(method, wishes, rules)
        named = {"method": name, "label": method["label"]}
        if broken:
            excluded.append(named | {"reasons": broken})
        else:
            ranking.append(named | _points(name, rules, active) | {"doubts": doubts})
    # remaining ties keep the order of criteria.json
    ranking.sort(key=lambda option: _place(option, rules["methods"][option["method"]]))
    conflicts = [c for c in rules["conflicts"] if active.keys() >= set(c["wishes"])]
    return {
        "wishes": [w["says"] for w in active.values()] + [f"{n} {v:g}" for n, v in numbers.items()],
        "ranking": ranking,
        "excluded": excluded,
        "compromises": _compromises(rules, active, ranking, excluded),
        "conflicts": [conflict["text"] for conflict in conflicts],
        "shares": _shares(conflicts, rules, wishes),
        "remarks": rules["always"],
    }


def _judge(method: Entry, wishes: Entry, rules: Entry) -> tuple[Reasons, Reasons]:
    """The constraints that a method breaks, and those that its numbers leave open."""
    broken, doubts = [], []
    for rule in rules["constraints"]:
        limit, unit, is_each = wishes.get(rule["setting"]), rule["unit"], method["per_language"]
        if limit is None or limit is False:
            continue
        if rule["rule"] == "is_true":
            broken += [] if method[rule["fact"]] else [{"text": rule["says"], "evidence": []}]
            continue
        if is_each and rule["rule"] == "at_least":
            continue  # one model for each language covers any number of them, at a multiple cost
        name = _fact(method, rule["fact"])
        cell = load_published().cell(*name)
        times = int(wishes.get("languages") or 1) if is_each and rule["scales"] else 1
        span = tuple(None if bound is None else bound * times for bound in cell.span)
        each = f" each, {_amount(span, unit)} for {times} models" if times > 1 else ""
        text = f"{rule['says']} {cell.text}{each}, against {_amount((limit, limit), unit)}"
        keeps = _keeps(span, rule["rule"], limit)
        if keeps is not True:
            reason = {"text": text, "evidence": [_evidence(name)]}
            (doubts if keeps is None else broken).append(reason)
    return broken, doubts


def _fact(method: Entry, fact: str) -> list[str]:
    """Where the published number of a method's fact stands."""
    return method["size"] if fact == "size_mb" else ["characteristics", method["row"], fact]


def _keeps(span: Span, rule: str, limit: float) -> bool | None:
    """Whether a published number keeps a limit; None where it does not settle that."""
    low, high = span
    if rule == "at_least":  # "9 or 18": the most that it covers
        return high >= limit if high is not None else (low is not None and low >= limit) or None
    if low is not None and low > limit:
        return False
    return (high is not None and high <= limit) or None


def _amount(span: Span, unit: str) -> str:
    return span_text(span, sign="$") if unit == "$" else f"{span_text(span)} {unit}".rstrip()


def _points(method: str, rules: Entry, active: Mapping[str, Entry]) -> Entry:
    """The points of a method, with the reasons for and against it."""
    points, good, bad = 0, [], []
    for rule in rules["criteria"]:
        if rule["method"] == method and active.keys() >= set(rule["wishes"]):
            points += rule["points"]
            said = "; ".join(active[name]["says"] for name in rule["wishes"])
            text = f"{said}: {rule['reason']}" if said else rule["reason"]
            reason = {"text": text, "evidence": [_evidence(cell) for cell in rule["evidence"]]}
            (good if rule["points"] > 0 else bad).append(reason)
    return {"points": points, "reasons_for": good, "reasons_against": bad}


def _place(option: Entry, method: Entry) -> tuple[float, ...]:
    """A smaller place is a better one."""
    facts = ("cost_usd", "trainable_parameters")
    most = [load_published().cell(*_fact(method, fact)).high for fact in facts]
    costs = [float("inf") if bound is None else bound for bound in most]
    return -option["points"], len(option["doubts"]), *costs


def _compromises(
    rules: Entry, active: Mapping[str, Entry], ranking: list[Entry], excluded: list[Entry]
) -> list[Entry]:
    """Each wish whose best methods are all excluded, with the nearest one that is not."""
    labels = {name: method["label"] for name, method in rules["methods"].items()}
    reasons = {entry["method"]: [r["text"] for r in entry["reasons"]] for entry in excluded}
    found = []
    for name, wish in active.items():
        points = dict.fromkeys(labels, 0)
        for rule in rules["criteria"]:
            if rule["wishes"] == [name]:
                points[rule["method"]] += rule["points"]
        bests = [m for m in points if points[m] == max(points.values()) > 0]
        if not bests or not reasons.keys() >= set(bests):
            continue
        left = [option["method"] for option in ranking if points[option["method"]] > 0]
        nearest = max(left, key=points.__getitem__, default=None)
        found.append(
            {
                "wish": wish["says"],
                "best": labels[bests[0]],
                "excluded_by": reasons[bests[0]],
                "nearest": labels.get(nearest),
                "lost": _lost(wish, bests[0], nearest, labels),
            }
        )
    return found


def _lost(wish: Entry, best: str, nearest: str | None, labels: Mapping[str, str]) -> str:
    """The published numbers of the best method and of the nearest one."""
    if nearest is None:
        return "all of it: no method that is left answers this wish"
    if "lost" not in wish:
        return "no published number compares the two"
    said = []
    for method in (best, nearest):
        name = wish["lost"]["cells"].get(method)
        cell = name and load_published().cell(*name)
        told = f"{cell.text} [{cell.strength}]" if cell else "no published number"
        said.append(f"{labels[method]} {told}")
    return f"{wish['lost']['heading']}: {', '.join(said)}"


def _shares(conflicts: list[Entry], rules: Entry, wishes: Entry) -> dict[str, str | None]:
    """For each wish that two methods may share: the best method without the other wishes."""
    shares: dict[str, str | None] = {}
    for names in (conflict["wishes"] for conflict in conflicts if conflict["is_split"]):
        for name in names:
            others = {rules["wishes"][other]["setting"] for other in names if other != name}
            alone = {key: value for key, value in wishes.items() if key not in others}
            best = next((o["method"] for o in advise(alone, rules)["ranking"]), None)
            method = rules["methods"].get(best)
            cost = method and load_published().cell(*_fact(method, "cost_usd")).text
            shares[rules["wishes"][name]["says"]] = method and f"{method['label']}, {cost}"
    return shares


def _evidence(name: Sequence[str]) -> Entry:
    """A published number: its place, its strength and what is known against it."""
    published, (table, method, column) = load_published(), name
    cell, found = published.cell(*name), published.tables[table]
    row = next(row for row in found.rows if row.method == method)
    head = next(head for head in found.columns if head.name == column)
    return {
        "table": found.origin,
        "method": method,
        "column": head.heading,
        "unit": head.unit,
        "text": cell.text,
        "strength": cell.strength,
        "sources": [published.references[key].citation for key in row.references],
        "note": "; ".join(part for part in (cell.note, row.note) if part),
    }
