"""`crosslingual-bench recommend`: which method, why, and on whose numbers.

crosslingual-bench recommend --budget 5000 --languages 18 --culture --single_language
crosslingual-bench recommend --retrieval --languages 9 --results results --json

The survey's section 5.2 and its README, as rules that stand in `criteria.json`. Published numbers
come with their strength; measured ones stand apart, under the data they were measured on.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from crosslingual.cli.verbs import run_verb
from crosslingual_benchmarks.advice import Advice, Evidence, Reason
from crosslingual_benchmarks.advising import advise
from crosslingual_benchmarks.criteria import Criteria, load_criteria
from crosslingual_benchmarks.measured_cost import (
    TASK_OF,
    foreign_of,
    mean_by_language,
    training_costs,
)
from crosslingual_benchmarks.results import Result, by_protocol, read_results
from crosslingual_benchmarks.tables import DASH, render_plain

METRICS = {**TASK_OF, "culture_score": "text_to_image"}
"""What is taken from result lines, and the task whose lines hold it; training's hours beside."""

NO_WISH = ("results", "json")


@dataclass
class RecommendSettings:
    """Settings of `crosslingual-bench recommend`: what is wished for, and what bounds it.

    Attributes:
        budget: dollars for training, all languages together.
        languages: how many, English aside or not.
        culture: whether concepts of a culture must be drawn or found.
        single_language: whether a model of one language is wanted.
        retrieval: whether pictures are searched.
        generation: whether pictures are drawn.
        deployment: whether it must be small and fast in production.
        research: whether it is to try things.
        quality: whether quality comes before cost.
        max_adapter_mb: the most megabytes to ship beside the frozen base.
        native_pairs: how many pictures with captions in the languages you have; 0 is none.
        results: result files, or folders of them, whose measured numbers are shown apart.
        json: whether to print JSON.
    """

    budget: float | None = None
    languages: int | None = None
    culture: bool = False
    single_language: bool = False
    retrieval: bool = False
    generation: bool = False
    deployment: bool = False
    research: bool = False
    quality: bool = False
    max_adapter_mb: float | None = None
    native_pairs: int | None = None
    results: list[str] = field(default_factory=list)
    json: bool = False


@dataclass(frozen=True)
class Measured:
    """A metric on one dataset by one protocol, in the methods that have lines of it.

    Attributes:
        metric: its name.
        unit: of the values.
        measured_on: dataset and protocol, in words.
        values: method to its mean over `languages`, the best first (of hours: the fewest).
        languages: the foreign ones that all of the methods have; none of training.
    """

    metric: str
    unit: str
    measured_on: str
    values: dict[str, float]
    languages: tuple[str, ...]


def wishes_of(settings: RecommendSettings) -> dict[str, bool | float | None]:
    """The settings that wish or constrain, by name."""
    return {name: value for name, value in asdict(settings).items() if name not in NO_WISH}


def measured_numbers(
    results: Sequence[Result], wishes: dict[str, bool | float | None], criteria: Criteria
) -> list[Measured]:
    """What result lines say of the wishes' metrics, apart by dataset and protocol.

    Args:
        results: lines of any task.
        wishes: as `wishes_of` gives them.
        criteria: the rules, which name each wish's metric.
    """
    told = [w for w in criteria.wishes.values() if w.is_active(wishes.get(w.setting))]
    wanted = {wish.measured for wish in told}
    wanted |= {"mean_recall"} if wishes.get("retrieval") else set()
    return [
        *_measured_metrics(results, [name for name in METRICS if name in wanted], criteria),
        *(_measured_hours(results, criteria) if "device_hours" in wanted else ()),
    ]


def recommend(settings: RecommendSettings) -> Advice:
    """Prints the answer, as text or JSON, and returns it.

    Raises:
        ValueError: nothing is wished for, a number is below 0, or a line is no result.
        FileNotFoundError: no result files there.
    """
    criteria, wishes = load_criteria(), wishes_of(settings)
    advice = advise(wishes, criteria)
    results = read_results(settings.results) if settings.results else []
    measured = measured_numbers(results, wishes, criteria)
    if settings.json:
        answer = asdict(advice) | {"measured": [asdict(table) for table in measured]}
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        print("\n".join(render_advice(advice, measured, bool(settings.results))))
    return advice


def render_advice(advice: Advice, measured: Sequence[Measured], has_results: bool) -> list[str]:
    """The answer as lines of text: published numbers with their strength, measured ones apart."""
    lines = [f"For {'; '.join(advice.wishes)}", ""]
    if not advice.ranking:
        lines += ["No method keeps every constraint; the compromises below name the nearest.", ""]
    for number, option in enumerate(advice.ranking, 1):
        lines.append(f"{number}. {option.label} ({option.points:+d})")
        for sign, reasons in (
            ("+", option.reasons_for),
            ("-", option.reasons_against),
            ("? may not keep:", option.doubts),
        ):
            for reason in reasons:
                first, *numbers = _reason(reason)
                lines += [f"   {sign} {first}", *(f"        {line}" for line in numbers)]
    if advice.excluded:
        lines += ["", "Excluded"]
        for entry in advice.excluded:
            lines.append(f"   {entry.label}")
            for reason in entry.reasons:
                first, *numbers = _reason(reason)
                lines += [f"     x {first}", *(f"        {line}" for line in numbers)]
    if advice.compromises:
        lines += ["", "What cannot be had"]
        for lost in advice.compromises:
            nearest = f"nearest is {lost.nearest}" if lost.nearest else "nothing is near"
            lines.append(f"   {lost.wish}: {lost.best} ({'; '.join(lost.excluded_by)}); {nearest}")
            lines.append(f"      lost: {lost.lost}")
    if advice.conflicts:
        lines += ["", "Wishes that pull apart", *(f"   {text}" for text in advice.conflicts)]
        lines += [f"   {wish}: {best or DASH}" for wish, best in advice.shares.items()]
    if has_results:
        lines += ["", *_measured_lines(measured)]
    return [*lines, "", *advice.remarks]


def _measured_metrics(
    results: Sequence[Result], metrics: Sequence[str], criteria: Criteria
) -> Iterator[Measured]:
    for metric in metrics:
        for words, lines in by_protocol(results, METRICS[metric]).items():
            by_method = {
                name: mean_by_language([line for line in lines if line["model"] == name], metric)
                for name in criteria.methods
            }
            by_method = {name: shares for name, shares in by_method.items() if shares}
            if not by_method:
                continue
            both = set.intersection(*(set(shares) for shares in by_method.values()))
            shared = foreign_of(sorted(both))
            means = {
                name: sum(shares[language] for language in shared) / len(shared)
                for name, shares in by_method.items()
                if shared
            }
            if means:
                best_first = dict(sorted(means.items(), key=lambda pair: (-pair[1], pair[0])))
                yield Measured(metric, "0-1", words, best_first, shared)


def _measured_hours(results: Sequence[Result], criteria: Criteria) -> Iterator[Measured]:
    by_dataset: dict[str, dict[str, float]] = {}
    for paid in training_costs(results, 1.0):
        if paid.arm in criteria.methods:
            hours = by_dataset.setdefault(paid.dataset, {})
            hours[paid.arm] = hours.get(paid.arm, 0.0) + paid.device_hours
    for dataset, hours in sorted(by_dataset.items()):
        fewest_first = dict(sorted(hours.items(), key=lambda pair: (pair[1], pair[0])))
        yield Measured("device_hours", "hours", dataset, fewest_first, ())


def _measured_lines(measured: Sequence[Measured]) -> Iterator[str]:
    if not measured:
        yield "Measured: the results hold nothing of these wishes' metrics."
    for table in measured:
        over = f", mean of {' '.join(table.languages)}" if table.languages else ""
        yield f"Measured on {table.measured_on}{over}"
        digits = 4 if table.unit == "hours" else 3
        rows = [[name, f"{value:.{digits}f}"] for name, value in table.values.items()]
        yield render_plain(["method", f"{table.metric}, {table.unit}"], rows)
        yield ""


def _reason(reason: Reason) -> Iterator[str]:
    yield reason.text
    yield from map(_published, reason.evidence)


def _published(evidence: Evidence) -> str:
    is_said = any(sign.isalpha() or sign in "$%" for sign in evidence.text)
    told = evidence.text if is_said else f"{evidence.text} {evidence.unit}"
    where = f"{evidence.method}, {evidence.column}; {evidence.table}"
    note = f"; {evidence.note}" if evidence.note else ""
    return f"published: {told} [{evidence.strength}]: {where}{note}"


def main(argv: list[str] | None = None) -> int:
    """Command line of `crosslingual-bench recommend`."""
    return run_verb("crosslingual-bench recommend", RecommendSettings, recommend, argv)


if __name__ == "__main__":
    sys.exit(main())
