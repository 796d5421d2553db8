"""Generation by language and arm: text accuracy, culture score, CLIP score, FID, KID."""

from collections.abc import Sequence
from dataclasses import replace

from crosslingual_benchmarks.report.document import Figure, Section, Table
from crosslingual_benchmarks.report.groups import groups_of, note_on_groups
from crosslingual_benchmarks.report.matrices import (
    arms_by_languages,
    every_metric,
    heat_map_of,
    languages_by_arms,
    measures_of,
)
from crosslingual_benchmarks.report.measures import Measure
from crosslingual_benchmarks.results import Result

TASK = "text_to_image"
DEFINITIONS = (
    "Text accuracy is the share of pictures that show all that their prompt says; culture score is "
    "the share of culture prompts whose picture shows the motif. CLIP score is 100 times the "
    "cosine with the English caption; FID and KID are distances to true pictures, and depend on "
    "the encoder, the resize and the number of pictures that the protocol names. Brackets hold "
    "bootstrap intervals of 95 %: how far a number would move with other prompts, not with another "
    "seed of training.",
    "A mean is over foreign languages, and their number stands behind it. Trained: the languages "
    "whose captions the arm was trained on. Zero-shot: the others. The interval of a mean is the "
    "mean of the intervals, an upper bound, since all languages describe the same scenes.",
)


def generation_section(results: Sequence[Result]) -> Section | None:
    """The section on generation; None where no line is on it."""
    groups = groups_of(results, TASK)
    if not groups:
        return None
    from crosslingual_benchmarks.metrics import find_metrics

    tables: list[Table] = []
    figures: list[Figure] = []
    for group in groups:
        note = group.note
        measured = []
        for metric in find_metrics():
            if not any(metric.name in r["metrics"] for r in group.results):
                continue
            measure = Measure(
                metric.name, metric.head, metric.scale, metric.decimals, metric.better
            )
            measured.append(measure)
            name = measure.head.removesuffix(", %")
            title = f"{name[0].upper()}{name[1:]}{' in %' * (measure.scale == 100)}"
            title += f" by language, {group.name}"
            key = f"{group.key}_{measure.name}"
            table = arms_by_languages(group, measure, key, title, note)
            if table is None:
                continue
            tables.append(table if metric.is_share else replace(table, is_folded=True))
            tables += filter(None, [languages_by_arms(group, measure, key, title, note)])
            if metric.is_share:
                figures.append(heat_map_of(group, measure, key, title))
        title = f"Every metric, language and arm, {group.name}"
        columns = measures_of(group, measured)
        tables.append(every_metric(group, columns, group.key, title, note, is_folded=True))
    paragraphs = [*DEFINITIONS, *note_on_groups(groups, "generation")]
    notes = [warning for group in groups for warning in group.warnings]
    return Section("generation", "Generation", paragraphs, tables, figures, notes=notes)
