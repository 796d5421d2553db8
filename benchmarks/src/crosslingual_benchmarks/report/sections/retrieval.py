"""Retrieval by language and arm: Recall@K both ways, and mean recall with its interval."""

import re
from collections.abc import Sequence

from crosslingual_benchmarks.report.document import Section
from crosslingual_benchmarks.report.groups import Group, groups_of, note_on_groups
from crosslingual_benchmarks.report.matrices import (
    arms_by_languages,
    every_metric,
    heat_map_of,
    languages_by_arms,
)
from crosslingual_benchmarks.report.measures import Measure
from crosslingual_benchmarks.results import Result

TASK = "zeroshot_retrieval"
MEAN_RECALL = Measure("mean_recall", "mean recall", 100, 1, "high")
WAYS = {"image_retrieval": "text→image", "text_retrieval": "image→text"}


def retrieval_section(results: Sequence[Result]) -> Section | None:
    """The section on retrieval; None where no line is on it."""
    groups = groups_of(results, TASK)
    if not groups:
        return None
    tables, figures = [], []
    for group in groups:
        sizes = [
            group.sizes("n_images", "pictures"),
            group.sizes("n_texts", "texts a language"),
            group.sizes("n_ties", "queries whose right answer ties with a wrong one"),
        ]
        note = f"{group.note} {'; '.join(filter(None, sizes))}."
        title = f"Mean recall in %, {group.name}"
        key = f"{group.key}_mean"
        matrix = arms_by_languages(group, MEAN_RECALL, key, title, note)
        if matrix:
            tables.append(matrix)
            tables += filter(None, [languages_by_arms(group, MEAN_RECALL, key, title, note)])
            figures.append(heat_map_of(group, MEAN_RECALL, key, title))
        full_title = f"Recall@K in %, every language and arm, {group.name}"
        tables.append(
            every_metric(group, _measures(group), group.key, full_title, note, is_folded=True)
        )
    definition = (
        "Recall@K is the share of queries whose right answer is among the first K; mean recall is "
        "the mean over both ways and all K. Brackets hold bootstrap intervals of 95 %. Cosines in "
        "fp32; a wrong candidate that ties with the right one ranks ahead of it."
    )
    paragraphs = [definition, *note_on_groups(groups, "retrieval")]
    notes = [warning for group in groups for warning in group.warnings]
    return Section("retrieval", "Retrieval", paragraphs, tables, figures, notes=notes)


def _measures(group: Group) -> list[Measure]:
    """A column a way and K that the lines have, then the mean."""
    names = {name for result in group.results for name in result["metrics"]}
    found = [m for name in names if (m := re.fullmatch(r"(\w+_retrieval)_recall@(\d+)", name))]
    found = sorted((m for m in found if m[1] in WAYS), key=lambda m: (m[1], int(m[2])))
    recalls = [Measure(m[0], f"{WAYS[m[1]]} R@{m[2]}", 100, 1, "high") for m in found]
    return [*recalls, MEAN_RECALL, Measure("n_ties", "ties", 1, 0)]
