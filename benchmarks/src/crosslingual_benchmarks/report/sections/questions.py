"""The question of a suite, answered by a table whose rows and columns the suite itself names."""

from collections.abc import Mapping, Sequence
from typing import Any

from crosslingual_benchmarks.report.arms import Arm
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.groups import Group, groups_of
from crosslingual_benchmarks.report.measures import Measure, Number, over_seeds
from crosslingual_benchmarks.report.plots import heat_map
from crosslingual_benchmarks.results import Answer, Result

ACCURACY = "text_accuracy"
SHARE = Measure(ACCURACY, "text accuracy, %", 100, 1)
NOTE = (
    "Text accuracy in %, or for a change its points. Of several seeds: the mean and, in brackets, "
    "the lowest and the highest."
)
INCHES, LETTER_INCHES = 0.5, 0.085  # of a heat map's column, and of a letter of its head

Answers = list[tuple[str, Answer]]
"""Of a cell: arms and what each of them tells; the cell is their mean."""
Cells = dict[tuple[str, str], Answers]


def question_sections(results: Sequence[Result]) -> list[Section]:
    """A section for each question that lines of training ask."""
    asked: dict[str, tuple[str, Cells]] = {}
    for line in results:
        if question := line.get("question"):
            _, cells = asked.setdefault(question["title"], (question["text"], {}))
            for answer in line.get("answers", ()):
                told = cells.setdefault((answer["row"], answer["column"]), [])
                told += [(line["model"], answer)] * ((line["model"], answer) not in told)
    groups = groups_of(results, "text_to_image")
    sections = []
    for number, (title, (text, cells)) in enumerate(asked.items(), 1):
        parts = [_parts(f"question_{number}_{g.key}", title, g, cells) for g in groups]
        tables = [table for table, _ in parts if table]
        figures = [figure for _, figure in parts if figure]
        if tables:
            sections.append(Section(f"question_{number}", title, [text], tables, figures))
    return sections


def cell_number(arms: Mapping[str, Arm], answers: Answers) -> Number | None:
    """The mean of a cell's answers, over the seeds that all of their arms have; None where there is
    none.
    """
    parts = [_of_seeds(arms, model, answer) for model, answer in answers]
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
    return over_seeds([sum(part[seed] for part in parts) / len(parts) for seed in seeds])


def _of_seeds(arms: Mapping[str, Arm], model: str, answer: Answer) -> dict[Any, float]:
    """An answer by seed."""
    means = _means(arms, model, answer["languages"])
    if not answer.get("against"):
        return means
    others = _means(arms, answer["against"], answer["languages"])
    return {seed: mean - others[seed] for seed, mean in means.items() if seed in others}


def _means(arms: Mapping[str, Arm], model: str, languages: list[str]) -> dict[Any, float]:
    """An arm's mean over languages, all of which it must have, by seed."""
    found = {}
    for each in (arms[model].seeds or (arms[model],)) if model in arms else ():
        mean, count = each.mean(ACCURACY, languages)
        if mean is not None and count == len(languages):
            found[each.results[0].get("seed")] = mean.value
    return found


def _parts(key: str, title: str, group: Group, cells: Cells) -> tuple[Table | None, Figure | None]:
    arms = {arm.model: arm for arm in group.rows}
    numbers = {place: cell_number(arms, answers) for place, answers in cells.items()}
    if not any(numbers.values()):
        return None, None
    rows, columns = (list(dict.fromkeys(place[i] for place in cells)) for i in (0, 1))
    title = f"{title}, {group.name}"
    table_rows = [
        [Cell(row), *(SHARE.cell(numbers.get((row, column))) for column in columns)] for row in rows
    ]
    table = Table(key, title, ["", *columns], table_rows, note=f"{NOTE} {group.note}")
    changes = {p[1] for p, answers in cells.items() if any(a.get("against") for _, a in answers)}
    levels = [column for column in columns if column not in changes]
    if not levels:
        return table, None
    values = {row: [numbers.get((row, column)) for column in levels] for row in rows}
    inches = INCHES + LETTER_INCHES * max(map(len, levels))
    label = "text accuracy in %"
    png = heat_map(values, levels, scale=SHARE.scale, label=label, column_inches=inches)
    alt = f"Heat map of text accuracy; the numbers stand in the table of the same title, {title}."
    return table, Figure(key, title, alt, png)
