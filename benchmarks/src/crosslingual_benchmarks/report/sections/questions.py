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
TASKS = {
    "text_to_image": Measure(ACCURACY, "text accuracy", 100, 1),
    "zeroshot_retrieval": Measure("mean_recall", "mean recall", 100, 1),
}
SEEDS = "Of several seeds: the mean and, in brackets, the lowest and the highest."
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
    groups = [(group, of) for task, of in TASKS.items() for group in groups_of(results, task)]
    sections = []
    for number, (title, (text, cells)) in enumerate(asked.items(), 1):
        parts = [
            _parts(f"question_{number}_{group.key}", title, group, measure, _of(cells, measure))
            for group, measure in groups
        ]
        tables = [table for table, _ in parts if table]
        figures = [figure for _, figure in parts if figure]
        if tables:
            sections.append(Section(f"question_{number}", title, [text], tables, figures))
    return sections


def _of(cells: Cells, measure: Measure) -> Cells:
    """The cells of a measure."""
    return {
        place: answers
        for place, answers in cells.items()
        if answers[0][1].get("measure", ACCURACY) == measure.name
    }


def cell_number(arms: Mapping[str, Arm], answers: Answers, name: str) -> Number | None:
    """The mean of a cell's answers by the metric of that name, over the seeds that all of their
    arms have; None where there is none.
    """
    parts = [_of_seeds(arms, model, answer, name) for model, answer in answers]
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
    return over_seeds([sum(part[seed] for part in parts) / len(parts) for seed in seeds])


def _of_seeds(arms: Mapping[str, Arm], model: str, answer: Answer, name: str) -> dict[Any, float]:
    """An answer by seed."""
    means = _means(arms, model, answer["languages"], name)
    if not answer.get("against"):
        return means
    others = _means(arms, answer["against"], answer["languages"], name)
    return {seed: mean - others[seed] for seed, mean in means.items() if seed in others}


def _means(
    arms: Mapping[str, Arm], model: str, languages: list[str], name: str
) -> dict[Any, float]:
    """An arm's mean over languages, all of which it must have, by seed."""
    found = {}
    for each in (arms[model].seeds or (arms[model],)) if model in arms else ():
        mean, count = each.mean(name, languages)
        if mean is not None and count == len(languages):
            found[each.results[0].get("seed")] = mean.value
    return found


def _parts(
    key: str, title: str, group: Group, measure: Measure, cells: Cells
) -> tuple[Table | None, Figure | None]:
    arms = {arm.model: arm for arm in group.rows}
    numbers = {p: cell_number(arms, answers, measure.name) for p, answers in cells.items()}
    if not any(numbers.values()):
        return None, None
    rows, columns = (list(dict.fromkeys(place[i] for place in cells)) for i in (0, 1))
    title = f"{title} {measure.head[0].upper()}{measure.head[1:]} in %, {group.name}"
    table_rows = [
        [Cell(row), *(measure.cell(numbers.get((row, column))) for column in columns)]
        for row in rows
    ]
    table = Table(key, title, ["training", *columns], table_rows, note=f"{SEEDS} {group.note}")
    changes = {p[1] for p, answers in cells.items() if any(a.get("against") for _, a in answers)}
    levels = [column for column in columns if column not in changes]
    if not levels:
        return table, None
    values = {row: [numbers.get((row, column)) for column in levels] for row in rows}
    inches = INCHES + LETTER_INCHES * max(map(len, levels))
    label = f"{measure.head} in %"
    png = heat_map(values, levels, scale=measure.scale, label=label, column_inches=inches)
    alt = f"Heat map of {measure.head}; the numbers stand in the table of the same title."
    return table, Figure(key, title, alt, png)
