"""Tables that tasks share: arms by languages, and every metric of a language and arm."""

from collections.abc import Sequence
from dataclasses import replace

from crosslingual_benchmarks.report.arms import Arm
from crosslingual_benchmarks.report.document import Cell, Figure, Table
from crosslingual_benchmarks.report.fairness import MANY, kinds_of
from crosslingual_benchmarks.report.groups import Group
from crosslingual_benchmarks.report.language_map import language_map
from crosslingual_benchmarks.report.measures import Measure
from crosslingual_benchmarks.report.plots import heat_map


def arms_by_languages(
    group: Group, measure: Measure, key: str, title: str, note: str = ""
) -> Table | None:
    """A row for each arm, over its seeds: means over languages, then a column for each language;
    None if no arm has the metric.

    The means are over all foreign languages and, where lines name the languages of training, over
    those and over the others. The number of languages stands behind a mean. Only means over the
    same languages, the most that an arm has, are ranked. Of many languages, English alone has a
    column: `languages_by_arms` has the others.
    """
    arms, languages = _measured(group, measure)
    if not arms:
        return None
    competes = [not arm.is_bound for arm in arms]
    wanted = _means_wanted(arms, [x for x in languages if x != "en"])
    shown = [x for x in languages if x == "en"] if len(languages) > MANY else languages
    columns = [
        *(_mean_column(head, of, measure, arms, competes) for head, of in wanted.items()),
        *(
            (language, measure.column([a.number(measure.name, language) for a in arms], competes))
            for language in shown
        ),
    ]
    rows = [
        [Cell(arm.label), *(cells[place] for _, cells in columns)] for place, arm in enumerate(arms)
    ]
    heads = ["arm", *(head for head, _ in columns)]
    bounds = frozenset(place for place, arm in enumerate(arms) if arm.is_bound)
    return Table(key, title, heads, rows, reference_rows=bounds, note=note)


def _means_wanted(arms: Sequence[Arm], foreign: list[str]) -> dict[str, list[list[str]]]:
    """Heads of means, and the languages of each arm's mean."""
    means = {"mean foreign": [foreign] * len(arms)} if len(foreign) > 1 else {}
    told = [arm.trained_languages for arm in arms]
    if any(told):
        means["mean trained"] = [[x for x in foreign if x in (part or ())] for part in told]
        means["mean zero-shot"] = [
            [x for x in foreign if part is not None and x not in part] for part in told
        ]
    return {head: of for head, of in means.items() if any(of)}


def _mean_column(
    head: str,
    wanted: list[list[str]],
    measure: Measure,
    arms: Sequence[Arm],
    competes: Sequence[bool],
) -> tuple[str, list[Cell]]:
    """A head and its column of means."""
    found = [
        [language for language in languages if arm.number(measure.name, language) is not None]
        for arm, languages in zip(arms, wanted, strict=True)
    ]
    means = [
        arm.mean(measure.name, languages)[0] for arm, languages in zip(arms, found, strict=True)
    ]
    most = max(found, key=len)
    cells = measure.column(means, [r and of == most for r, of in zip(competes, found, strict=True)])
    if all(languages in ([], most) for languages in found):
        return f"{head} ({len(most)})", cells
    return head, [
        replace(cell, text=f"{cell.text} ({len(languages)})") if languages else cell
        for cell, languages in zip(cells, found, strict=True)
    ]


def languages_by_arms(
    group: Group, measure: Measure, key: str, title: str, note: str = ""
) -> Table | None:
    """A row for each of many languages, by what methods knew of it, and a column for each arm;
    None where there are few, which `arms_by_languages` has.
    """
    arms, languages = _measured(group, measure)
    if len(languages) <= MANY:
        return None
    kinds = {"English": [x for x in languages if x == "en"]}
    kinds |= kinds_of(languages, group.facts, group.trained)
    rows = [
        [
            Cell(_named(language, group)),
            Cell(kind),
            *(measure.cell(arm.number(measure.name, language)) for arm in arms),
        ]
        for kind, held in kinds.items()
        for language in held
    ]
    heads = ["language", "kind", *(arm.label for arm in arms)]
    return Table(f"{key}_languages", title, heads, rows, note=note, is_folded=True)


def heat_map_of(group: Group, measure: Measure, key: str, title: str) -> Figure:
    """A share of arms by languages, as a picture of the table with the same title. Many languages
    stand in rows, from the best of a kind to its worst, without the bounds.
    """
    arms, languages = _measured(group, measure)
    words = measure.head.removesuffix(", %")
    if len(languages) > MANY and (rivals := [arm for arm in arms if not arm.is_bound]):
        png = _map_of(rivals, languages, group, measure)
    else:
        rows = {arm.label: [arm.number(measure.name, x) for x in languages] for arm in arms}
        png = heat_map(rows, languages, scale=measure.scale, label=f"{words} in %")
    return Figure(
        key,
        title,
        f"Heat map of {words}: {len(arms)} arms by {len(languages)} languages; the numbers stand "
        "in the table of the same title.",
        png,
    )


def _map_of(arms: Sequence[Arm], languages: Sequence[str], group: Group, measure: Measure) -> bytes:
    numbers = {x: [arm.number(measure.name, x) for arm in arms] for x in languages}

    def height(language: str) -> float:
        return -sum(number.value for number in numbers[language] if number is not None)

    blocks = {
        kind: {_named(x, group): numbers[x] for x in sorted(held, key=height)}
        for kind, held in kinds_of(languages, group.facts, group.trained).items()
    }
    words = measure.head.removesuffix(", %")
    columns = [arm.label for arm in arms]
    return language_map(blocks, columns, scale=measure.scale, label=f"{words} in %")


def _measured(group: Group, measure: Measure) -> tuple[list[Arm], list[str]]:
    """The arms and the languages that have a number."""
    arms = [arm for arm in group.rows if any(arm.number(measure.name, x) for x in group.languages)]
    return arms, [x for x in group.languages if any(a.number(measure.name, x) for a in arms)]


def _named(language: str, group: Group) -> str:
    """A language's code with its English name, where that is told."""
    name = group.facts.get(language, {}).get("name")
    return f"{name} {language}" if name else language


def every_metric(
    group: Group,
    measures: Sequence[Measure],
    key: str,
    title: str,
    note: str = "",
    is_folded: bool = False,
) -> Table:
    """A row for each language and arm, a column for each measure; every language has its best."""
    rows: list[list[Cell]] = []
    bounds: set[int] = set()
    for language in (*group.languages, None):
        arms = [arm for arm in group.arms if any(arm.number(m.name, language) for m in measures)]
        competes = [not arm.is_bound for arm in arms]
        columns = [m.column([a.number(m.name, language) for a in arms], competes) for m in measures]
        for place, arm in enumerate(arms):
            if arm.is_bound:
                bounds.add(len(rows))
            head = [Cell(arm.label)]
            if group.languages:
                head.insert(0, Cell(language, names=language) if language else Cell("all"))
            rows.append([*head, *(column[place] for column in columns)])
    heads = ["language", "arm"] if group.languages else ["arm"]
    return Table(
        key,
        title,
        [*heads, *(measure.head for measure in measures)],
        rows,
        num_head_cells=len(heads),
        reference_rows=frozenset(bounds),
        note=note,
        is_folded=is_folded,
    )


def measures_of(group: Group, known: Sequence[Measure]) -> list[Measure]:
    """The known measures that the lines have, then the lines' other metrics as they are."""
    names = {name for result in group.results for name in result["metrics"]}
    others = sorted(names - {measure.name for measure in known})
    return [*(m for m in known if m.name in names), *(Measure(name, name, 1, 4) for name in others)]
