"""Fairness across languages: whom each arm leaves out, where a comparison has many languages."""

import math
from collections.abc import Mapping, Sequence

from crosslingual_benchmarks.report.arms import Arm, style_of
from crosslingual_benchmarks.report.curves import Line, quality_curves
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.fairness import (
    MANY,
    Spread,
    kinds_of,
    scripts_and_families,
    spread_of,
)
from crosslingual_benchmarks.report.groups import Group, groups_of
from crosslingual_benchmarks.report.measures import Measure, Number, number_of
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result

MEASURES = {
    "text_to_image": Measure("text_accuracy", "text accuracy", 100, 1),
    "zeroshot_retrieval": Measure("mean_recall", "mean recall", 100, 1),
}
WIDTH = 2 * 1.96  # of a 95 % interval, in standard deviations
DEFINITIONS = (
    "A mean hides who is left out. The plot sorts the languages of each arm from its worst to its "
    "best: a line that stays low for long serves few languages, and it crosses half of English at "
    "the share of languages that have less. English is what the English model has on English "
    "prompts, the same for all arms; foreign languages alone are counted.",
    "Worst and best tenth: the mean over a tenth of the languages, rounded up. Deviation: the "
    "standard deviation over languages, and in brackets what the choice of prompts alone would "
    "give, by the lines' intervals; a worst tenth is lower than it truly is by this noise. Known: "
    "the correlation with whether the encoder's pretraining had read the language, from -1 to 1. "
    "Script: how much of the variance lies between scripts, adjusted so that scripts that make no "
    "difference give 0 on average. Both are over languages in which no arm trained.",
)


def fairness_section(results: Sequence[Result]) -> Section | None:
    """The section on fairness; None where no comparison has many languages."""
    tables: list[Table] = []
    figures: list[Figure] = []
    for task, measure in MEASURES.items():
        for group in groups_of(results, task):
            values = {arm.label: group.shares(arm, measure.name) for arm in group.rows}
            arms = [arm for arm in group.rows if values[arm.label]]
            if max((len(values[arm.label]) for arm in arms if not arm.is_bound), default=0) < MANY:
                continue
            words = f"{measure.head}, {group.name}"
            tables.append(_spreads(arms, values, group, measure, f"Spread of {words}"))
            tables.append(_means(arms, group, measure, f"Means by group of languages: {words}"))
            title = f"Languages from worst to best: {words}"
            folded = bool(figures)
            figures.append(_figure(arms, values, group, measure, title, folded))
    if not tables:
        return None
    return Section("fairness", "Who is left out", [*DEFINITIONS], tables, figures)


def _spreads(
    arms: Sequence[Arm],
    values: Mapping[str, Mapping[str, float]],
    group: Group,
    measure: Measure,
    title: str,
) -> Table:
    english = group.english(measure.name)
    heads = ["arm", "languages", "mean, %", "worst tenth, %", "best tenth, %"]
    heads += ["languages below half of English, %", "deviation, points", "known, r", "script, %"]
    rows = []
    for arm in arms:
        spread = spread_of(values[arm.label], english, group.facts, group.trained)
        noise = deviation_of_prompts(arm, measure, values[arm.label])
        rows.append([Cell(arm.label), *_cells(spread, noise, measure)])
    bounds = frozenset(place for place, arm in enumerate(arms) if arm.is_bound)
    told = "not measured" if english is None else f"{measure.show(english)} %"
    note = f"English: {told}. {group.note}"
    return Table(f"fairness_{group.key}", title, heads, rows, reference_rows=bounds, note=note)


def _cells(spread: Spread, noise: float | None, measure: Measure) -> list[Cell]:
    def share(value: float | None) -> Cell:
        return Cell(DASH if value is None else measure.show(value))

    return [
        Cell(str(spread.num_languages)),
        *map(share, (spread.mean, spread.worst, spread.best, spread.below_half)),
        Cell(measure.show(spread.deviation), "" if noise is None else measure.show(noise)),
        Cell(DASH if spread.known is None else f"{spread.known:+.2f}"),
        share(spread.script),
    ]


def deviation_of_prompts(
    arm: Arm, measure: Measure, languages: Mapping[str, float]
) -> float | None:
    """The standard deviation over languages that the choice of prompts alone would give: the root
    of the mean variance that the lines' intervals tell. None where no line has one.
    """
    lines = [line for line in arm.results if line.get("language") in languages]
    numbers = [n for line in lines if (n := number_of(line, measure.name)) and n.low is not None]
    if not numbers:
        return None
    variances = [((n.high - n.low) / WIDTH) ** 2 for n in numbers]
    return math.sqrt(sum(variances) / len(variances))


def _means(arms: Sequence[Arm], group: Group, measure: Measure, title: str) -> Table:
    """A row a group of languages, a column an arm."""
    named = {
        **kinds_of(group.languages, group.facts, group.trained),
        **scripts_and_families(group.languages, group.facts, group.trained),
    }
    rows = []
    for name, languages in named.items():
        numbers = [arm.mean(measure.name, languages)[0] for arm in arms]
        values = [None if number is None else Number(number.value) for number in numbers]
        head = Cell(f"{name} ({len(languages)})")
        rows.append([head, *map(measure.cell, values)])
    trained = ", ".join(sorted(group.trained)) or "none"
    note = (
        f"In %. Trained: {trained}; an arm that trains on English alone has read none of them. "
        "Scripts and families: languages in which no arm trained."
    )
    heads = ["languages", *(arm.label for arm in arms)]
    return Table(f"fairness_{group.key}_groups", title, heads, rows, note=note)


def _figure(
    arms: Sequence[Arm],
    values: Mapping[str, Mapping[str, float]],
    group: Group,
    measure: Measure,
    title: str,
    is_folded: bool,
) -> Figure:
    lines = []
    for arm in (arm for arm in arms if not arm.is_bound):
        ranked = sorted(values[arm.label].values())
        places = [100 * (number + 1) / len(ranked) for number in range(len(ranked))]
        lines.append(Line(arm.label, places, [Number(v) for v in ranked], style_of(arm.model)))
    english = group.english(measure.name)
    levels = {} if english is None else {"English": english, "half of English": english / 2}
    png = quality_curves(
        lines,
        levels,
        place_label="share of the foreign languages in %, the worst first",
        quality_label=f"{measure.head} in %",
        scale=measure.scale,
    )
    alt = (
        f"Lines of {measure.head} over languages sorted from worst to best for "
        f"{', '.join(line.label for line in lines)}. The spread of each stands in the table of "
        "spreads."
    )
    return Figure(f"fairness_{group.key}", title, alt, png, is_folded)
