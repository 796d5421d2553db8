"""`crosslingual-bench recommend`: which method, why, and on whose numbers.

    crosslingual-bench recommend --budget 5000 --languages 18 --culture true --single_language true
    crosslingual-bench recommend --retrieval true --languages 9 --results results --json true

The survey's section 5.2 and its README, as the rules of `criteria.json`. Published numbers come
with their strength; measured ones stand apart, under the data they were measured on.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from crosslingual_benchmarks.cost.measured import (
    TASK_OF,
    foreign_of,
    mean_by_language,
    training_costs,
)
from crosslingual_benchmarks.recommend.advice import Entry, Reasons, Wishes, advise
from crosslingual_benchmarks.recommend.rules import Rules, is_active, load_rules
from crosslingual_benchmarks.report.tables import DASH, render_plain
from crosslingual_benchmarks.results import Result, by_protocol, read_results

METRICS = {**TASK_OF, "culture_score": "text_to_image"}
"""The metrics that are read from result lines, and the task whose lines hold them."""


@dataclass
class RecommendSettings:
    """Settings of `crosslingual-bench recommend`: what is wished for, and what bounds it.

    Attributes:
        budget: dollars for training, for all languages together.
        languages: how many languages the model has to know.
        culture: whether it has to draw or find the concepts of a culture.
        single_language: whether a model of one language is wanted.
        retrieval: whether it has to find pictures by text and text by pictures.
        generation: whether it has to draw pictures.
        deployment: whether it has to be small and fast in production.
        research: whether it is for research and prototypes.
        quality: whether quality comes before cost.
        max_adapter_mb: the most megabytes to ship beside the frozen base.
        native_pairs: how many pictures with captions in the languages you have; 0 is none.
        results: result files, or folders of them; their numbers are shown apart.
        json: print the answer as JSON.
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
    """A metric on one dataset by one protocol, for the methods that have lines of it.

    Attributes:
        metric: its name.
        unit: of the values.
        measured_on: dataset and protocol, in words.
        values: method to its mean over `languages`, the best first (of hours: the fewest).
        languages: the foreign ones that all of the methods have; none for training.
    """

    metric: str
    unit: str
    measured_on: str
    values: dict[str, float]
    languages: Sequence[str]


def recommend(settings: RecommendSettings) -> Entry:
    """Prints the answer, as text or JSON, and returns it.

    Raises:
        ValueError: nothing is wished for, a number is below 0, or a line is no result.
        FileNotFoundError: no result files there.
    """
    rules = load_rules()
    wishes = {n: v for n, v in asdict(settings).items() if n not in ("results", "json")}
    advice = advise(wishes, rules)
    results = read_results(settings.results) if settings.results else []
    measured = measured_numbers(results, wishes, rules)
    if settings.json:
        answer = advice | {"measured": [asdict(table) for table in measured]}
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(advice, measured if settings.results else None)))
    return advice


def measured_numbers(results: Sequence[Result], wishes: Wishes, rules: Rules) -> list[Measured]:
    """The wishes' metrics as result lines have them, apart by dataset and protocol.

    Args:
        results: lines of any task.
        wishes: a setting's name to its value.
        rules: they name each wish's metric.
    """
    wanted = {
        wish["measured"]
        for wish in rules["wishes"].values()
        if is_active(wish, wishes.get(wish["setting"]))
    }
    found = [
        table
        for metric in METRICS
        if metric in wanted
        for words, lines in by_protocol(results, METRICS[metric]).items()
        for table in _means(metric, words, lines, rules["methods"])
    ]
    return [*found, *(_hours(results, rules["methods"]) if "device_hours" in wanted else ())]


def _means(
    metric: str, words: str, lines: Sequence[Result], methods: Iterable[str]
) -> Iterator[Measured]:
    """A metric's mean over the foreign languages that all methods with lines of it have."""
    shares = {
        name: found
        for name in methods
        if (found := mean_by_language([line for line in lines if line["model"] == name], metric))
    }
    shared = foreign_of(sorted(set.intersection(*map(set, shares.values())))) if shares else ()
    if shared:
        means = {m: sum(of[n] for n in shared) / len(shared) for m, of in shares.items()}
        best_first = sorted(means.items(), key=lambda pair: (-pair[1], pair[0]))
        yield Measured(metric, "0-1", words, dict(best_first), shared)


def _hours(results: Sequence[Result], methods: Iterable[str]) -> Iterator[Measured]:
    """The device-hours of each method's trainings, by dataset."""
    by_dataset: dict[str, dict[str, float]] = {}
    for paid in training_costs(results, 1.0):
        if paid.arm in methods:
            hours = by_dataset.setdefault(paid.dataset, {})
            hours[paid.arm] = hours.get(paid.arm, 0.0) + paid.device_hours
    for dataset, hours in sorted(by_dataset.items()):
        fewest_first = dict(sorted(hours.items(), key=lambda pair: (pair[1], pair[0])))
        yield Measured("device_hours", "hours", dataset, fewest_first, ())


def _lines(advice: Entry, measured: Sequence[Measured] | None) -> Iterator[str]:
    """The answer as lines of text; measured numbers stand apart, None where none were asked for."""
    yield from (f"For {'; '.join(advice['wishes'])}", "")
    if not advice["ranking"]:
        yield from ("No method keeps every constraint; the compromises below name the nearest.", "")
    for number, option in enumerate(advice["ranking"], 1):
        yield f"{number}. {option['label']} ({option['points']:+d})"
        yield from _reasons("   + ", option["reasons_for"])
        yield from _reasons("   - ", option["reasons_against"])
        yield from _reasons("   ? may not keep: ", option["doubts"])
    if advice["excluded"]:
        yield from ("", "Excluded")
    for entry in advice["excluded"]:
        yield f"   {entry['label']}"
        yield from _reasons("     x ", entry["reasons"])
    if advice["compromises"]:
        yield from ("", "What cannot be had")
    for lost in advice["compromises"]:
        nearest = f"nearest is {lost['nearest']}" if lost["nearest"] else "nothing is near"
        yield f"   {lost['wish']}: {lost['best']} ({'; '.join(lost['excluded_by'])}); {nearest}"
        yield f"      lost: {lost['lost']}"
    if advice["conflicts"]:
        yield from ("", "Wishes that pull apart", *(f"   {text}" for text in advice["conflicts"]))
        yield from (f"   {wish}: {best or DASH}" for wish, best in advice["shares"].items())
    if measured is not None:
        yield ""
        yield from _measured_lines(measured)
    yield from ("", *advice["remarks"])


def _reasons(sign: str, reasons: Reasons) -> Iterator[str]:
    for reason in reasons:
        yield sign + reason["text"]
        yield from (f"        {_published(**evidence)}" for evidence in reason["evidence"])


def _published(
    table: str, method: str, column: str, unit: str, text: str, strength: str, note: str, **_: Any
) -> str:
    has_unit = any(sign.isalpha() or sign in "$%" for sign in text)
    told = text if has_unit else f"{text} {unit}"
    note = f"; {note}" if note else ""
    return f"published: {told} [{strength}]: {method}, {column}; {table}{note}"


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
