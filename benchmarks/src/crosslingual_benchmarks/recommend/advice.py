"""Applies the rules of `criteria.json` to wishes; equal wishes give equal answers.

Constraints exclude. Criteria whose wishes are all active add points. Ties go to the method with
fewer open doubts, then to the cheaper one, then to the one that trains fewer parameters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from crosslingual_benchmarks.published.spans import Span, span_text
from crosslingual_benchmarks.published.tables import load_published
from crosslingual_benchmarks.recommend.rules import Rules, fact_cell, is_active, load_rules

Wishes = Mapping[str, bool | float | None]
"""A setting's name to its value: the settings of `RecommendSettings` that wish or constrain."""

Entry = dict[str, Any]  # a part of the answer, as its JSON has it
Reasons = list[Entry]  # each {"text": ..., "evidence": [published numbers, see `_evidence`]}


def advise(wishes: Wishes, rules: Rules | None = None) -> Entry:
    """Ranks the methods for some wishes.

    Args:
        wishes: a setting's name to its value; absent or None is no wish.
        rules: those of the package if None.

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
    for name, value in wishes.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value}: it must be 0 or more")
    active = {
        name: wish
        for name, wish in rules["wishes"].items()
        if is_active(wish, wishes.get(wish["setting"]))
    }
    if not active and not any(wishes.get(c["setting"]) for c in rules["constraints"]):
        raise ValueError(
            "nothing is wished for: give one wish, such as --languages 18 or --culture"
        )
    ranking, excluded = [], []
    for name, method in rules["methods"].items():
        broken, doubts = _judge(method, wishes, rules)
        named = {"method": name, "label": method["label"]}
        if broken:
            excluded.append({**named, "reasons": broken})
        else:
            ranking.append({**named, **_points(name, rules, active), "doubts": doubts})
    ranking.sort(key=lambda option: _place(option, rules))
    conflicts = [c for c in rules["conflicts"] if active.keys() >= set(c["wishes"])]
    numbers = {n: v for n, v in wishes.items() if v is not None and not isinstance(v, bool)}
    return {
        "wishes": [
            *(wish["says"] for wish in active.values()),
            *(f"{name} {value:g}" for name, value in numbers.items()),
        ],
        "ranking": ranking,
        "excluded": excluded,
        "compromises": _compromises(rules, active, ranking, excluded),
        "conflicts": [conflict["text"] for conflict in conflicts],
        "shares": _shares(conflicts, rules, wishes),
        "remarks": rules["always"],
    }


def _judge(method: Entry, wishes: Wishes, rules: Rules) -> tuple[Reasons, Reasons]:
    """The constraints that a method breaks, and those that its numbers leave open."""
    broken: Reasons = []
    doubts: Reasons = []
    for rule in rules["constraints"]:
        limit = wishes.get(rule["setting"])
        if limit is None or limit is False:
            continue
        if rule["rule"] == "is_true":
            broken += [] if method[rule["fact"]] else [{"text": rule["says"], "evidence": []}]
            continue
        is_each = method["per_language"]
        if is_each and rule["rule"] == "at_least":
            continue  # one model for each language covers any number of them, at a multiple cost
        cell = load_published().cell(*fact_cell(method, rule["fact"]))
        times = int(wishes.get("languages") or 1) if is_each and rule["scales"] else 1
        span = tuple(None if bound is None else bound * times for bound in cell.span)
        text = f"{rule['says']} {cell.text}"
        if times > 1:
            text += f" each, {_amount(span, rule['unit'])} for {times} models"
        text += f", against {_amount((limit, limit), rule['unit'])}"
        keeps = _keeps(span, rule["rule"], limit)
        if keeps is not True:
            evidence = [_evidence(fact_cell(method, rule["fact"]))]
            (doubts if keeps is None else broken).append({"text": text, "evidence": evidence})
    return broken, doubts


def _keeps(span: Span, rule: str, limit: float) -> bool | None:
    """Whether a published number keeps a limit; None where it does not settle that."""
    low, high = span
    if rule == "at_most":
        if low is not None and low > limit:
            return False
        return True if high is not None and high <= limit else None
    if high is not None:  # "9 or 18": the most that it covers
        return high >= limit
    return True if low is not None and low >= limit else None


def _amount(span: Span, unit: str) -> str:
    return span_text(span, sign="$") if unit == "$" else f"{span_text(span)} {unit}".rstrip()


def _points(method: str, rules: Rules, active: Mapping[str, Entry]) -> Entry:
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


def _place(option: Entry, rules: Rules) -> tuple[float, ...]:
    """A smaller place is a better one; the order of criteria.json decides what is left."""
    method, order = rules["methods"][option["method"]], list(rules["methods"])
    facts = ("cost_usd", "trainable_parameters")
    cells = [load_published().cell(*fact_cell(method, fact)) for fact in facts]
    most = [float("inf") if cell.high is None else cell.high for cell in cells]
    return -option["points"], len(option["doubts"]), *most, order.index(option["method"])


def _compromises(
    rules: Rules, active: Mapping[str, Entry], ranking: list[Entry], excluded: list[Entry]
) -> list[Entry]:
    """Each wish whose best methods are all excluded, with the nearest one that is not."""
    reasons = {entry["method"]: [r["text"] for r in entry["reasons"]] for entry in excluded}
    found = []
    for name, wish in active.items():
        points = dict.fromkeys(rules["methods"], 0)
        for rule in rules["criteria"]:
            if rule["wishes"] == [name]:
                points[rule["method"]] += rule["points"]
        most = max(points.values())
        bests = [method for method in points if points[method] == most]
        if most <= 0 or any(method not in reasons for method in bests):
            continue
        left = [option["method"] for option in ranking if points[option["method"]] > 0]
        nearest = max(left, key=lambda method: points[method], default=None)
        best, near = (rules["methods"][n]["label"] if n else None for n in (bests[0], nearest))
        found.append(
            {
                "wish": wish["says"],
                "best": best,
                "excluded_by": reasons[bests[0]],
                "nearest": near,
                "lost": _lost(wish, [bests[0], nearest], rules),
            }
        )
    return found


def _lost(wish: Entry, methods: Sequence[str | None], rules: Rules) -> str:
    """The published numbers of the best method and of the nearest one."""
    if methods[1] is None:
        return "all of it: no method that is left answers this wish"
    if "lost" not in wish:
        return "no published number compares the two"
    said = []
    for method in methods:
        name = wish["lost"]["cells"].get(method)
        cell = name and load_published().cell(*name)
        told = f"{cell.text} [{cell.strength}]" if cell else "no published number"
        said.append(f"{rules['methods'][method]['label']} {told}")
    return f"{wish['lost']['heading']}: {', '.join(said)}"


def _shares(conflicts: list[Entry], rules: Rules, wishes: Wishes) -> dict[str, str | None]:
    """For each wish that two methods may share: the best method without the other wishes."""
    shares: dict[str, str | None] = {}
    for names in (conflict["wishes"] for conflict in conflicts if conflict["is_split"]):
        for name in names:
            others = {rules["wishes"][other]["setting"] for other in names if other != name}
            alone = {key: value for key, value in wishes.items() if key not in others}
            best = next(iter(advise(alone, rules)["ranking"]), None)
            if best is not None:
                method = rules["methods"][best["method"]]
                cost = load_published().cell(*fact_cell(method, "cost_usd")).text
                best = f"{best['label']}, {cost}"
            shares[rules["wishes"][name]["says"]] = best
    return shares


def _evidence(name: Sequence[str]) -> Entry:
    """A published number: where it stands, how strong it is and what is known against it."""
    published, (table, method, column) = load_published(), name
    cell, found = published.cell(*name), published.tables[table]
    (row,) = [row for row in found.rows if row.method == method]
    (head,) = [head for head in found.columns if head.name == column]
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
