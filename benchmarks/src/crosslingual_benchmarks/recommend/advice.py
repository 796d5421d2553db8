"""Applies the rules of `criteria.json` to wishes; equal wishes give equal answers.

Constraints exclude. Criteria whose wishes are all active add points. Ties go to the method with
fewer open doubts, then to the cheaper one, then to the one that trains fewer parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crosslingual_benchmarks.published.spans import Span, span_text
from crosslingual_benchmarks.published.tables import load_published
from crosslingual_benchmarks.recommend.rules import (
    CellName,
    Conflict,
    Constraint,
    MethodFacts,
    Rules,
    Wish,
    load_rules,
)

Wishes = Mapping[str, bool | float | None]
"""A setting's name to its value: the settings of `RecommendSettings` that wish or constrain."""


@dataclass(frozen=True)
class Evidence:
    """A published number: where it stands, how strong it is and what is known against it."""

    table: str
    method: str
    column: str
    unit: str
    text: str
    strength: str
    sources: list[str]
    note: str


@dataclass(frozen=True)
class Reason:
    """A reason, with the published numbers that it leans on; some lean on none."""

    text: str
    evidence: Sequence[Evidence] = ()


@dataclass(frozen=True)
class Option:
    """A method that keeps every constraint; published numbers leave the `doubts` open."""

    method: str
    label: str
    points: int
    reasons_for: list[Reason]
    reasons_against: list[Reason]
    doubts: list[Reason]


@dataclass(frozen=True)
class Exclusion:
    """A method that breaks constraints, each with the number that excludes it."""

    method: str
    label: str
    reasons: list[Reason]


@dataclass(frozen=True)
class Compromise:
    """A wish whose best method is excluded: the nearest one that is not, and what that loses."""

    wish: str
    best: str
    excluded_by: list[str]
    nearest: str | None
    lost: str


@dataclass(frozen=True)
class Advice:
    """The whole answer.

    Attributes:
        wishes: in words.
        ranking: the best first.
        excluded: methods that break a constraint.
        compromises: wishes whose best method is excluded.
        conflicts: which wishes pull apart.
        shares: for wishes that two methods may share, the best method of each and its cost.
        remarks: they hold for every answer.
    """

    wishes: list[str]
    ranking: list[Option]
    excluded: list[Exclusion]
    compromises: list[Compromise]
    conflicts: list[str]
    shares: dict[str, str | None]
    remarks: list[str]


def advise(wishes: Wishes, rules: Rules | None = None) -> Advice:
    """Ranks the methods for some wishes.

    Args:
        wishes: a setting's name to its value; absent or None is no wish.
        rules: those of the package if None.

    Raises:
        ValueError: nothing is wished for, or a number is below 0.
    """
    rules = rules or load_rules()
    for name, value in wishes.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value}: it must be 0 or more")
    active = {n: w for n, w in rules.wishes.items() if w.is_active(wishes.get(w.setting))}
    if not active and not any(wishes.get(c.setting) for c in rules.constraints):
        raise ValueError(
            "nothing is wished for: give one wish, such as --languages 18 or --culture"
        )
    options, excluded = [], []
    for facts in rules.methods.values():
        broken, doubts = _judge(facts, wishes, rules.constraints)
        if broken:
            excluded.append(Exclusion(facts.name, facts.label, broken))
        else:
            options.append(_option(facts, rules, active, doubts))
    ranking = sorted(options, key=lambda option: _place(option, rules))
    conflicts = [c for c in rules.conflicts if active.keys() >= set(c.wishes)]
    numbers = {n: v for n, v in wishes.items() if v is not None and not isinstance(v, bool)}
    said = [*(w.says for w in active.values()), *(f"{n} {v:g}" for n, v in numbers.items())]
    compromises = _compromises(rules, active, ranking, excluded)
    texts = [conflict.text for conflict in conflicts]
    shares = _shares(conflicts, rules, wishes)
    return Advice(said, ranking, excluded, compromises, texts, shares, rules.always)


def _judge(
    facts: MethodFacts, wishes: Wishes, constraints: Iterable[Constraint]
) -> tuple[list[Reason], list[Reason]]:
    """The constraints that a method breaks, and those that its numbers leave open."""
    broken: list[Reason] = []
    doubts: list[Reason] = []
    for rule in constraints:
        limit = wishes.get(rule.setting)
        if limit is None or limit is False:
            continue
        if rule.rule == "is_true":
            broken += [] if getattr(facts, rule.fact) else [Reason(rule.says)]
            continue
        if facts.per_language and rule.rule == "at_least":
            continue  # one model for each language covers any number of them, at a multiple cost
        cell = load_published().cell(*facts.cell(rule.fact))
        times = int(wishes.get("languages") or 1) if facts.per_language and rule.scales else 1
        span = tuple(None if bound is None else bound * max(1, times) for bound in cell.span)
        text = f"{rule.says} {cell.text}"
        if times > 1:
            text += f" each, {_amount(span, rule.unit)} for {times} models"
        text += f", against {_amount((limit, limit), rule.unit)}"
        keeps = _keeps(span, rule.rule, limit)
        if keeps is not True:
            reason = Reason(text, [_evidence(facts.cell(rule.fact))])
            (doubts if keeps is None else broken).append(reason)
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


def _option(
    facts: MethodFacts, rules: Rules, active: Mapping[str, Wish], doubts: list[Reason]
) -> Option:
    points, good, bad = 0, [], []
    for rule in rules.criteria:
        if rule.method == facts.name and active.keys() >= set(rule.wishes):
            points += rule.points
            said = "; ".join(active[name].says for name in rule.wishes)
            text = f"{said}: {rule.reason}" if said else rule.reason
            reason = Reason(text, [_evidence(cell) for cell in rule.evidence])
            (good if rule.points > 0 else bad).append(reason)
    return Option(facts.name, facts.label, points, good, bad, doubts)


def _place(option: Option, rules: Rules) -> tuple[float, ...]:
    """A smaller place is a better one; the order of criteria.json decides what is left."""
    facts = rules.methods[option.method]
    cells = [load_published().cell(*facts.cell(f)) for f in ("cost_usd", "trainable_parameters")]
    most = [float("inf") if cell.high is None else cell.high for cell in cells]
    return -option.points, len(option.doubts), *most, list(rules.methods).index(option.method)


def _compromises(
    rules: Rules, active: Mapping[str, Wish], ranking: list[Option], excluded: list[Exclusion]
) -> list[Compromise]:
    reasons = {entry.method: [r.text for r in entry.reasons] for entry in excluded}
    found = []
    for name, wish in active.items():
        points = dict.fromkeys(rules.methods, 0)
        for rule in rules.criteria:
            if rule.wishes == [name]:
                points[rule.method] += rule.points
        most = max(points.values())
        bests = [method for method in points if points[method] == most]
        if most <= 0 or any(method not in reasons for method in bests):
            continue
        left = [option.method for option in ranking if points[option.method] > 0]
        nearest = max(left, key=lambda method: points[method], default=None)
        lost = _lost(wish, [bests[0], nearest], rules)
        labels = [rules.methods[n].label if n else None for n in (bests[0], nearest)]
        found.append(Compromise(wish.says, labels[0], reasons[bests[0]], labels[1], lost))
    return found


def _lost(wish: Wish, methods: Sequence[str | None], rules: Rules) -> str:
    """The published numbers of the best method and of the nearest one."""
    if methods[1] is None:
        return "all of it: no method that is left answers this wish"
    if not wish.lost["cells"]:
        return "no published number compares the two"
    said = []
    for method in methods:
        name = wish.lost["cells"].get(method)
        cell = load_published().cell(*name) if name else None
        told = f"{cell.text} [{cell.strength}]" if cell else "no published number"
        said.append(f"{rules.methods[method].label} {told}")
    return f"{wish.lost['heading']}: {', '.join(said)}"


def _shares(conflicts: list[Conflict], rules: Rules, wishes: Wishes) -> dict[str, str | None]:
    """For each wish that two methods may share: the best method without the other wishes."""
    shares: dict[str, str | None] = {}
    for conflict in (c for c in conflicts if c.is_split):
        for name in conflict.wishes:
            others = {rules.wishes[other].setting for other in conflict.wishes if other != name}
            alone = {key: value for key, value in wishes.items() if key not in others}
            best = next(iter(advise(alone, rules).ranking), None)
            cell = best and load_published().cell(*rules.methods[best.method].cell("cost_usd"))
            shares[rules.wishes[name].says] = cell and f"{best.label}, {cell.text}"
    return shares


def _evidence(name: CellName) -> Evidence:
    published = load_published()
    table, method, column = name
    cell, found = published.cell(*name), published.tables[table]
    (row,) = [row for row in found.rows if row.method == method]
    (head,) = [head for head in found.columns if head.name == column]
    sources = [published.references[key].citation for key in row.references]
    note = "; ".join(part for part in (cell.note, row.note) if part)
    told = (head.heading, head.unit, cell.text, cell.strength)
    return Evidence(found.origin, method, *told, sources, note)
