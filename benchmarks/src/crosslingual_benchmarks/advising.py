"""Applies the rules of `criteria.json` to some wishes.

Constraints exclude; criteria whose wishes are active add points; ties go to the cheaper method and
then to the one that trains less. Equal wishes give equal answers.
"""

from collections.abc import Mapping

from crosslingual_benchmarks.advice import (
    Advice,
    Compromise,
    Evidence,
    Exclusion,
    Option,
    Reason,
)
from crosslingual_benchmarks.criteria import (
    CellName,
    Conflict,
    Constraint,
    Criteria,
    MethodFacts,
    Wish,
    load_criteria,
)
from crosslingual_benchmarks.published import Published, load_published
from crosslingual_benchmarks.spans import Span, span_text

Wishes = Mapping[str, bool | float | None]
"""A setting's name to its value: those of `RecommendSettings` that wish or constrain."""


def advise(wishes: Wishes, criteria: Criteria | None = None) -> Advice:
    """Ranks the methods for some wishes.

    Args:
        wishes: a setting's name to its value; absent or None is no wish.
        criteria: the rules; those of the package if None.

    Raises:
        ValueError: nothing is wished for, or a number is below 0.
    """
    criteria = criteria or load_criteria()
    published = load_published()
    for name, value in wishes.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value}: it must be 0 or more")
    active = {
        name: wish
        for name, wish in criteria.wishes.items()
        if wish.is_active(wishes.get(wish.setting))
    }
    if not active and not any(wishes.get(c.setting) for c in criteria.constraints):
        raise ValueError(
            "nothing is wished for: give one wish, such as --languages 18 or --culture"
        )
    options, excluded = [], []
    for facts in criteria.methods.values():
        broken, doubts = _judge(facts, wishes, criteria.constraints, published)
        if broken:
            excluded.append(Exclusion(facts.name, facts.label, tuple(broken)))
        else:
            options.append(_option(facts, criteria, active, tuple(doubts), published))
    ranking = sorted(options, key=lambda option: _place(option, criteria, published))
    conflicts = [c for c in criteria.conflicts if all(name in active for name in c.wishes)]
    return Advice(
        wishes=_in_words(wishes, active),
        ranking=tuple(ranking),
        excluded=tuple(excluded),
        compromises=tuple(_compromises(criteria, active, ranking, excluded, published)),
        conflicts=tuple(conflict.text for conflict in conflicts),
        shares=_shares(conflicts, criteria, wishes, published),
        remarks=criteria.always,
    )


def _judge(
    facts: MethodFacts,
    wishes: Wishes,
    constraints: tuple[Constraint, ...],
    published: Published,
) -> tuple[list[Reason], list[Reason]]:
    """The constraints that a method breaks, and those that its numbers leave open."""
    broken: list[Reason] = []
    doubts: list[Reason] = []
    for rule in constraints:
        limit = wishes.get(rule.setting)
        if limit is None or limit is False:
            continue
        if rule.rule == "is_true":
            if not getattr(facts, rule.fact):
                broken.append(Reason(rule.says))
            continue
        if facts.per_language and rule.rule == "at_least":
            continue  # a model a language covers any number of them, at a multiple of the cost
        name = facts.cell(rule.fact)
        cell = published.cell(*name)
        is_each = facts.per_language and rule.scales
        times = max(1, int(wishes.get("languages") or 1)) if is_each else 1
        low, high = (None if b is None else b * times for b in (cell.low, cell.high))
        told = f"{rule.says} {cell.text}"
        if times > 1:
            told += f" each, {_amount((low, high), rule.unit)} for {times} models"
        text = f"{told}, against {_amount((limit, limit), rule.unit)}"
        reason = Reason(text, (_evidence(name, published),))
        keeps = _keeps((low, high), rule.rule, limit)
        if keeps is not True:
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
    facts: MethodFacts,
    criteria: Criteria,
    active: Mapping[str, Wish],
    doubts: tuple[Reason, ...],
    published: Published,
) -> Option:
    points, good, bad = 0, [], []
    for rule in criteria.criteria:
        if rule.method == facts.name and all(name in active for name in rule.wishes):
            points += rule.points
            said = "; ".join(active[name].says for name in rule.wishes)
            text = f"{said}: {rule.reason}" if said else rule.reason
            evidence = tuple(_evidence(cell, published) for cell in rule.evidence)
            (good if rule.points > 0 else bad).append(Reason(text, evidence))
    return Option(facts.name, facts.label, points, tuple(good), tuple(bad), doubts)


def _place(option: Option, criteria: Criteria, published: Published) -> tuple[float, ...]:
    """Where an option stands: by points, open doubts, the most it costs, what it trains."""
    facts = criteria.methods[option.method]
    cost, trained = (
        published.cell(*facts.cell(fact)) for fact in ("cost_usd", "trainable_parameters")
    )
    unknown = float("inf")
    most, size = (unknown if c.high is None else c.high for c in (cost, trained))
    return (
        -option.points,
        len(option.doubts),
        most,
        size,
        list(criteria.methods).index(option.method),
    )


def _compromises(
    criteria: Criteria,
    active: Mapping[str, Wish],
    ranking: list[Option],
    excluded: list[Exclusion],
    published: Published,
) -> list[Compromise]:
    reasons = {entry.method: tuple(r.text for r in entry.reasons) for entry in excluded}
    found = []
    for name, wish in active.items():
        points = dict.fromkeys(criteria.methods, 0)
        for rule in criteria.criteria:
            if rule.wishes == (name,):
                points[rule.method] += rule.points
        most = max(points.values())
        bests = [method for method in points if points[method] == most]
        if most <= 0 or any(method not in reasons for method in bests):
            continue
        best = bests[0]
        left = [option.method for option in ranking if points[option.method] > 0]
        nearest = max(left, key=lambda method: points[method], default=None)
        labels = criteria.methods
        lost = _lost(wish, best, nearest, criteria, published)
        label = labels[nearest].label if nearest else None
        found.append(Compromise(wish.says, labels[best].label, reasons[best], label, lost))
    return found


def _lost(
    wish: Wish, best: str, nearest: str | None, criteria: Criteria, published: Published
) -> str:
    """What the best method's published number is beside the nearest one's."""
    if nearest is None:
        return "all of it: no method that is left answers this wish"
    if not wish.lost_cells:
        return "no published number compares the two"
    said = []
    for method in (best, nearest):
        name = wish.lost_cells.get(method)
        cell = published.cell(*name) if name else None
        told = f"{cell.text} [{cell.strength}]" if cell else "no published number"
        said.append(f"{criteria.methods[method].label} {told}")
    return f"{wish.lost_heading}: {', '.join(said)}"


def _shares(
    conflicts: list[Conflict], criteria: Criteria, wishes: Wishes, published: Published
) -> dict[str, str | None]:
    """For each wish of a conflict that two methods may share: the best without the other wishes."""
    shares: dict[str, str | None] = {}
    for conflict in conflicts:
        for name in conflict.wishes if conflict.is_split else ():
            others = {criteria.wishes[other].setting for other in conflict.wishes if other != name}
            alone = {key: value for key, value in wishes.items() if key not in others}
            ranking = advise(alone, criteria).ranking
            best = None
            if ranking:
                cost = published.cell(*criteria.methods[ranking[0].method].cell("cost_usd"))
                best = f"{ranking[0].label}, {cost.text}"
            shares[criteria.wishes[name].says] = best
    return shares


def _evidence(name: CellName, published: Published) -> Evidence:
    table, method, column = name
    cell = published.cell(*name)
    (row,) = [row for row in published.tables[table].rows if row.method == method]
    (head,) = [head for head in published.tables[table].columns if head.name == column]
    sources = tuple(published.references[key].citation for key in row.references)
    note = "; ".join(part for part in (cell.note, row.note) if part)
    origin = published.tables[table].origin
    return Evidence(
        origin, method, head.heading, head.unit, cell.text, cell.strength, sources, note
    )


def _in_words(wishes: Wishes, active: Mapping[str, Wish]) -> tuple[str, ...]:
    said = [wish.says for wish in active.values()]
    numbers = {name: v for name, v in wishes.items() if v is not None and not isinstance(v, bool)}
    return (*said, *(f"{name} {value:g}" for name, value in numbers.items()))
