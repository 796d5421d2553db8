"""The measured cost of training: device-hours and price from `training` lines, points from the
others.

Training lines of one arm that differ in their seed are averaged. An arm's points are 100 times
the mean over the foreign languages of its own lines. A number that the lines do not give is None,
and `reasons` says why.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from crosslingual_benchmarks.results import Result, by_protocol, metric_of

TASK_OF = {"text_accuracy": "text_to_image", "mean_recall": "zeroshot_retrieval"}
"""The metrics that points may be of, and the task whose lines hold them."""

AS_IS = ("as_is", "clip")
"""Untrained arms: of generation, and of retrieval."""


@dataclass(frozen=True)
class TrainingCost:
    """The cost of one arm's training.

    Device-hours are `train_s` x `num_processes` / 3600, which is what is paid for; step-hours are
    the part that optimiser steps took, stage by stage where the line has `stages`. Hours are means
    over `num_runs`. A number that no line gives is None.
    """

    arm: str
    dataset: str
    num_runs: int
    num_processes: int
    device_hours: float
    step_hours: float | None
    price: float
    trainable_parameters: float | None
    total_parameters: float | None
    peak_gb: float | None


@dataclass(frozen=True)
class PointCost:
    """A training's cost and the points that it reached, on one dataset by one protocol.

    Points are 100 x the metric's mean over `languages`; gained points are those above the as-is arm
    in the same languages. A number that the lines do not give is None, and `reasons` says why.
    """

    training: TrainingCost
    languages: tuple[str, ...] = ()
    points: float | None = None
    price_per_point: float | None = None
    gained: float | None = None
    price_per_gained: float | None = None
    reasons: tuple[str, ...] = ()


def training_costs(results: Sequence[Result], price_per_hour: float) -> list[TrainingCost]:
    """The cost of each arm's training, by arm's name.

    The price is of one device's hour, that is of one process.

    Raises:
        ValueError: the price is not above 0.
    """
    if not 0 < price_per_hour < float("inf"):
        raise ValueError(f"price_per_hour is {price_per_hour}: give what a device-hour costs you")
    groups: dict[str, list[Result]] = {}
    for line in results:
        if line["task"] == "training":
            told = [line["model"], line["dataset"], line["protocol"]]
            key = json.dumps(told, sort_keys=True)
            groups.setdefault(key, []).append(line)
    return [_training(lines, price_per_hour) for _, lines in sorted(groups.items())]


def point_costs(
    results: Sequence[Result],
    price_per_hour: float,
    metric: str = "text_accuracy",
    languages: Sequence[str] = (),
) -> dict[str, list[PointCost]]:
    """Each training's cost and its points, grouped by the points' dataset and protocol.

    The metric is one of `TASK_OF`. Points are means over `languages`, or if empty over the foreign
    ones of each arm's lines.

    Returns:
        From dataset and protocol in words to a row a training; one entry of the empty text where no
        line holds the metric.

    Raises:
        ValueError: no such metric, no training line, or what `training_costs` raises.
    """
    if metric not in TASK_OF:
        raise ValueError(f"no points of {metric!r}: choose among {', '.join(TASK_OF)}")
    trainings = training_costs(results, price_per_hour)
    if not trainings:
        raise ValueError("these results hold no line of the task training; run compare first")
    groups = {
        words: shares
        for words, lines in by_protocol(results, TASK_OF[metric]).items()
        if (shares := [line for line in lines if metric_of(line, metric) is not None])
    }
    counts = Counter(training.arm for training in trainings)
    return {
        words: [_points(t, counts[t.arm], lines, metric, languages) for t in trainings]
        for words, lines in (groups or {"": []}).items()
    }


def mean_by_language(lines: Sequence[Result], metric: str) -> dict[str, float]:
    """A metric by language, each the mean over its lines (seeds), in the languages' order.

    The lines are of one arm, dataset and protocol; those without the metric are left out.
    """
    values: dict[str, list[float]] = {}
    for line in lines:
        value = metric_of(line, metric)
        if value is not None:
            values.setdefault(str(line.get("language") or "-"), []).append(value)
    return {language: sum(told) / len(told) for language, told in sorted(values.items())}


def foreign_of(languages: Iterable[str]) -> tuple[str, ...]:
    """All but English, which the base speaks already; all where there are no others."""
    told = tuple(languages)
    return tuple(language for language in told if language != "en") or told


def _training(lines: list[Result], price_per_hour: float) -> TrainingCost:
    metrics = [line["metrics"] for line in lines]
    hours = sum(told["train_s"] * told["num_processes"] for told in metrics) / 3600 / len(lines)
    in_steps = [_step_s(line) for line in lines]
    told_steps = [
        seconds * told["num_processes"] / 3600 / len(lines)
        for seconds, told in zip(in_steps, metrics, strict=True)
        if seconds is not None
    ]
    return TrainingCost(
        arm=lines[0]["model"],
        dataset=str(lines[0]["dataset"]),
        num_runs=len(lines),
        num_processes=int(max(told["num_processes"] for told in metrics)),
        device_hours=hours,
        step_hours=sum(told_steps) if len(told_steps) == len(lines) else None,
        price=hours * price_per_hour,
        trainable_parameters=_most(metrics, "trainable_parameters"),
        total_parameters=_most(metrics, "total_parameters"),
        peak_gb=_most(metrics, "peak_gb"),
    )


def _step_s(line: Result) -> float | None:
    """Seconds in optimiser steps, whose length may differ from stage to stage."""
    stages = line.get("stages") or [line["metrics"]]
    if any("steps" not in stage or "step_s" not in stage for stage in stages):
        return None
    return sum(stage["steps"] * stage["step_s"] for stage in stages)


def _most(metrics: list[dict[str, float]], name: str) -> float | None:
    return max((told[name] for told in metrics if name in told), default=None)


def _points(
    training: TrainingCost,
    num_trainings: int,
    lines: list[Result],
    metric: str,
    languages: Sequence[str],
) -> PointCost:
    cost, arm = PointCost(training), training.arm
    if num_trainings > 1:
        reason = f"{num_trainings} trainings of {arm} and nothing that says which made its points"
        return replace(cost, reasons=(f"{reason}: give the results of one",))
    shares = mean_by_language([line for line in lines if line["model"] == arm], metric)
    wanted = tuple(languages) or foreign_of(shares)
    missing = [language for language in wanted if language not in shares]
    if missing or not wanted:
        return replace(cost, reasons=(_no_line(metric, arm, missing),))
    points = _hundred_fold(shares, wanted)
    cost = replace(cost, languages=wanted, points=points)
    if points > 0:
        cost = replace(cost, price_per_point=training.price / points)
    else:
        cost = replace(cost, reasons=(f"{arm} has 0 points: no price of one",))
    as_is = next((name for name in AS_IS if any(line["model"] == name for line in lines)), AS_IS[0])
    before = mean_by_language([line for line in lines if line["model"] == as_is], metric)
    missing = [language for language in wanted if language not in before]
    if missing:
        return replace(cost, reasons=(*cost.reasons, _no_line(metric, as_is, missing)))
    gained = points - _hundred_fold(before, wanted)
    if gained > 0:
        return replace(cost, gained=gained, price_per_gained=training.price / gained)
    reason = f"{arm} gains nothing over {as_is}: no price of a point gained"
    return replace(cost, gained=gained, reasons=(*cost.reasons, reason))


def _no_line(metric: str, arm: str, languages: Sequence[str]) -> str:
    return f"no {metric} line of {arm}" + (f" in {', '.join(languages)}" if languages else "")


def _hundred_fold(shares: dict[str, float], languages: Sequence[str]) -> float:
    return 100 * sum(shares[language] for language in languages) / len(languages)
