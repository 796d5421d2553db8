"""Few-shot languages: how many names bring each language to a quarter and to half of English.

An arm counts if its name ends with its number of names, as `pea_30_names` does.
"""

import re
from collections.abc import Sequence

from crosslingual_benchmarks.report.arms import LABELS, Arm
from crosslingual_benchmarks.report.curves import Line, curve_panels
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.groups import Group, groups_of
from crosslingual_benchmarks.report.measures import Measure, Number
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result

MEASURES = {
    "text_to_image": Measure("text_accuracy", "text accuracy", 100, 1),
    "zeroshot_retrieval": Measure("mean_recall", "mean recall", 100, 1),
}
NAMED = re.compile(r"(\w+)_(\d+)_names")
TARGETS = {"a quarter of English": 0.25, "half of English": 0.5}
TEXT = (
    "Each arm learns from the names of so many things in every language of the plots at once, in "
    "the seconds that the table of training has, and is asked for other things; where the data "
    "set's name ends in -train, for things of the training split, of whose names it has read some "
    "or all. English is what the English model has on English prompts. A target is reached at the "
    "first measured number of names that has it; brackets hold the intervals of the lines, or the "
    "lowest and the highest of several seeds."
)

Curves = dict[str, dict[int, Arm]]
"""Methods to their arms by the number of names."""


def few_shot_section(results: Sequence[Result]) -> Section | None:
    """The section on few names; None where no arm says how many it had."""
    tables, figures = [], []
    for task, measure in MEASURES.items():
        for group in groups_of(results, task):
            curves = curves_of(group, measure)
            english = group.english(measure.name)
            if not curves or not english:
                continue
            title = f"{measure.head.capitalize()} over the number of names, {group.name}"
            tables.append(_table(group, curves, measure, english, title))
            figures.append(_figure(group, curves, measure, english, title))
    return Section("few_shot", "Few names", [TEXT], tables, figures) if tables else None


def curves_of(group: Group, measure: Measure) -> Curves:
    """The arms that have the metric and say how many names they read."""
    curves: Curves = {}
    for arm in group.rows:
        if (found := NAMED.fullmatch(arm.model)) and group.shares(arm, measure.name):
            curves.setdefault(found[1], {})[int(found[2])] = arm
    order = [*LABELS, *curves]
    return {name: dict(sorted(curves[name].items())) for name in sorted(curves, key=order.index)}


def names_to(numbers: dict[int, Number], target: float) -> int | None:
    """The least number of names at which a target is reached; None where it never is."""
    return next((n for n, number in numbers.items() if number.value >= target), None)


def _numbers(arms: dict[int, Arm], language: str, measure: Measure) -> dict[int, Number]:
    found = {n: arm.number(measure.name, language) for n, arm in arms.items()}
    return {n: number for n, number in found.items() if number is not None}


def _languages(group: Group) -> list[str]:
    """The foreign ones, those that the encoder has not read first."""
    foreign = [x for x in group.languages if x != "en"]
    return sorted(foreign, key=lambda x: group.facts.get(x, {}).get("encoder") != "unknown")


def _named(language: str, group: Group) -> str:
    facts = group.facts.get(language)
    return f"{facts['name']}, {facts['encoder']} to the encoder" if facts else language


def _table(group: Group, curves: Curves, measure: Measure, english: float, title: str) -> Table:
    counts = sorted({n for arms in curves.values() for n in arms})
    rows = []
    for language in _languages(group):
        for name, arms in curves.items():
            numbers = _numbers(arms, language, measure)
            reached = [names_to(numbers, share * english) for share in TARGETS.values()]
            rows.append(
                [
                    Cell(_named(language, group)),
                    Cell(LABELS.get(name, name)),
                    *(measure.cell(numbers.get(n)) for n in counts),
                    *(Cell(DASH if n is None else str(n)) for n in reached),
                ]
            )
    heads = ["language", "arm", *(f"{n} names, %" for n in counts)]
    heads += [f"names to {target}" for target in TARGETS]
    note = f"English: {measure.show(english)} %. A dash: not reached. {group.note}"
    return Table(f"few_shot_{group.key}", title, heads, rows, num_head_cells=2, note=note)


def _figure(group: Group, curves: Curves, measure: Measure, english: float, title: str) -> Figure:
    panels = {}
    for language in _languages(group):
        told = {name: _numbers(arms, language, measure) for name, arms in curves.items()}
        panels[_named(language, group)] = [
            Line(LABELS.get(name, name), [*numbers], [*numbers.values()], style)
            for style, (name, numbers) in enumerate(told.items())
            if numbers
        ]
    levels = {"English": english}
    levels |= {target: share * english for target, share in TARGETS.items()}
    png = curve_panels(
        panels,
        levels,
        place_label="names (logarithmic)",
        quality_label=f"{measure.head} in %",
        scale=measure.scale,
    )
    arms = ", ".join(LABELS.get(name, name) for name in curves)
    alt = (
        f"Lines of {measure.head} over the number of names for {arms}, a panel a language; the "
        "numbers stand in the table of the same title."
    )
    return Figure(f"few_shot_{group.key}", title, alt, png)
