"""Prompts in two languages: each arm against its own accuracy in one language."""

from collections.abc import Callable, Sequence

from crosslingual_benchmarks.generation.prompts.world import MIXED_WITH
from crosslingual_benchmarks.report.arms import Arm
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.groups import Group, groups_of, note_on_groups
from crosslingual_benchmarks.report.languages import in_order
from crosslingual_benchmarks.report.measures import Measure, Number, over_seeds
from crosslingual_benchmarks.report.plots import heat_map
from crosslingual_benchmarks.results import Result

TASK = "code_mixing"
ACCURACY = "text_accuracy"
SHARE = Measure(ACCURACY, "text accuracy, %", 100, 1)
DEFINITION = (
    "Each prompt names two things, the first in one language and the second in another: the "
    "sentence and its first thing are of the language on the left of a map, the second thing of "
    "the language above it. On the diagonal the same scenes are said in one language. Trained: the "
    "languages in whose captions the comparison trains; zero-shot: the others. A change is in "
    "points, from the weaker of a pair's languages alone to the pair, the mean over pairs in both "
    "orders: 0 says that mixing itself costs nothing."
)

Pair = tuple[str, str]


def code_mixing_section(results: Sequence[Result]) -> Section | None:
    """The section on prompts in two languages; None where no line is on them."""
    groups = [group for group in groups_of(results, TASK) if _languages(group)[0]]
    if not groups:
        return None
    tables, figures = [], []
    for group in groups:
        tables.append(_table(group))
        figures += [_map(group, arm, place) for place, arm in enumerate(group.rows)]
    paragraphs = [DEFINITION, *note_on_groups(groups, "code-mixing")]
    return Section("code_mixing", "Prompts in two languages", paragraphs, tables, figures)


def pairs_of(languages: Sequence[str], trained: Sequence[str]) -> dict[str, list[Pair]]:
    """The ordered pairs of two languages by kind: both train, or one of them does."""
    pairs = [(a, b) for a in languages for b in languages if a != b]
    count = {pair: sum(language in trained for language in pair) for pair in pairs}
    named = {"both trained": 2, "trained and zero-shot": 1}
    return {name: [pair for pair in pairs if count[pair] == num] for name, num in named.items()}


def accuracy(arm: Arm, first: str, second: str) -> float | None:
    """The text accuracy of one seed's arm in a pair of languages, or in one with itself."""
    number = arm.number(ACCURACY, first if first == second else f"{first}{MIXED_WITH}{second}")
    return None if number is None else number.value


def change(arm: Arm, pairs: Sequence[Pair]) -> float | None:
    """The mean, over the pairs that were measured, of the accuracy in the pair less that in the
    weaker of both languages.
    """
    changes = []
    for first, second in pairs:
        mixed = accuracy(arm, first, second)
        alone = accuracy(arm, first, first), accuracy(arm, second, second)
        if None not in (mixed, *alone):
            changes.append(mixed - min(alone))
    return sum(changes) / len(changes) if changes else None


def mean_accuracy(arm: Arm, pairs: Sequence[Pair]) -> float | None:
    """The mean over the pairs that were measured."""
    found = [value for pair in pairs if (value := accuracy(arm, *pair)) is not None]
    return sum(found) / len(found) if found else None


def _over_seeds(arm: Arm, value: Callable[..., float | None], pairs: list[Pair]) -> Number | None:
    found = [value(each, pairs) for each in arm.seeds or (arm,)]
    return over_seeds([number for number in found if number is not None])


def _languages(group: Group) -> tuple[list[str], list[str]]:
    """All single languages of a group, and those of them that train."""
    told = group.results[0]["protocol"].get("second_languages")
    trained = told if isinstance(told, list) else []
    return in_order({name for name in group.languages if MIXED_WITH not in name}), trained


def _table(group: Group) -> Table:
    languages, trained = _languages(group)
    kinds = {k: pairs for k, pairs in pairs_of(languages, trained).items() if pairs}
    alone = {"one language, trained": [(x, x) for x in languages if x in trained]}
    alone["one language, zero-shot"] = [(x, x) for x in languages if x not in trained]
    columns = [(f"{k} ({len(p)})", mean_accuracy, p) for k, p in alone.items() if p]
    for kind, pairs in kinds.items():
        columns.append((f"mixed, {kind} ({len(pairs)})", mean_accuracy, pairs))
        columns.append((f"change, {kind}", change, pairs))
    rows = [
        [Cell(arm.label), *(SHARE.cell(_over_seeds(arm, of, pairs)) for _, of, pairs in columns)]
        for arm in group.rows
    ]
    title = f"Text accuracy of prompts in two languages in %, {group.name}"
    heads = ["arm", *(head for head, _, _ in columns)]
    return Table(f"{group.key}_means", title, heads, rows, note=group.note)


def _map(group: Group, arm: Arm, place: int) -> Figure:
    languages, _ = _languages(group)

    def number(first: str, second: str) -> Number | None:
        return _over_seeds(arm, mean_accuracy, [(first, second)])

    rows = {first: [number(first, second) for second in languages] for first in languages}
    title = f"Text accuracy in %, first language down, second across: {arm.label}, {group.name}"
    alt = (
        f"Heat map of text accuracy for {arm.label}: the language of the sentence and of its first "
        "thing down, the language of the second thing across; its means stand in the table above."
    )
    png = heat_map(rows, languages, scale=SHARE.scale, label="text accuracy in %")
    return Figure(f"{group.key}_{place}", title, alt, png, is_folded=place > 0)
