"""The costs of arms: parameters, training time, memory, and milliseconds a query."""

from collections.abc import Sequence

from crosslingual_benchmarks.report.document import Section
from crosslingual_benchmarks.report.groups import groups_of, note_on_groups
from crosslingual_benchmarks.report.matrices import every_metric, measures_of
from crosslingual_benchmarks.report.measures import Measure
from crosslingual_benchmarks.results import Result

TRAINING_MEASURES = (
    Measure("trainable_parameters", "trainable parameters", 1, 0, "low", is_exact=True),
    Measure("total_parameters", "all parameters", 1, 0),
    Measure("trainable_share", "trainable, %", 100, 2),
    Measure("budget_s", "wanted in all, s", 1, 0),
    Measure("wall_s", "taken in all, s", 1, 0),
    Measure("train_s", "training steps, s", 1, 0),
    Measure("steps", "steps", 1, 0),
    Measure("step_s", "a step, s", 1, 3),
    Measure("samples_per_s", "samples/s", 1, 1),
    Measure("num_processes", "processes", 1, 0),
    Measure("peak_gb", "peak memory, GB", 1, 2),
)
LATENCY_MEASURES = (
    Measure("image_to_text_ms", "image→text, ms", 1, 1, "low"),
    Measure("text_to_image_ms", "text→image, ms", 1, 1, "low"),
    Measure("prompt_to_picture_ms", "prompt to drawn picture, ms", 1, 1, "low"),
    Measure("prompt_to_one_step_ms", "prompt to one step, ms", 1, 1, "low"),
)


def training_section(results: Sequence[Result]) -> Section | None:
    """The section on parameters, time and memory; None where no line is on training."""
    text = (
        "Times and memory are of the machine that trained, and only compare with others of the "
        "same protocol. Taken in all: starts, features, steps and saving, also of other arms whose "
        "outputs an arm builds on. Fewest trainable parameters are marked; times are not ranked, "
        "for they have no interval."
    )
    results = [_with_share(result) for result in results]
    return _section(results, "training", "Parameters and training", text, TRAINING_MEASURES)


def latency_section(results: Sequence[Result]) -> Section | None:
    """The section on latency; None where no line is on it."""
    text = (
        "Image→text: from a picture to the best text of an index; text→image: from a text to the "
        "best picture; one query at a time. Medians of many, their quartiles in brackets, on one "
        "machine; ranked where quartiles share no point."
    )
    # quartiles take the place of intervals
    results = [result | {"interval95": result.get("quartiles", {})} for result in results]
    return _section(results, "latency", "Latency", text, LATENCY_MEASURES)


def _section(
    results: Sequence[Result], task: str, title: str, text: str, measures: Sequence[Measure]
) -> Section | None:
    groups = groups_of(results, task)
    if not groups:
        return None
    tables = [
        every_metric(g, measures_of(g, measures), g.key, f"{task.capitalize()}: {g.name}", g.note)
        for g in groups
    ]
    return Section(task, title, [text, *note_on_groups(groups, task)], tables)


def _with_share(result: Result) -> Result:
    """The line, and the share of its parameters that trained."""
    metrics = result["metrics"]
    if not metrics.get("total_parameters") or "trainable_parameters" not in metrics:
        return result
    share = metrics["trainable_parameters"] / metrics["total_parameters"]
    return result | {"metrics": metrics | {"trainable_share": share}}
