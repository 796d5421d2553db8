"""`crosslingual-bench recommend`: which method, why, and on whose numbers.

    crosslingual-bench recommend --budget 5000 --languages 18 --culture true --single_language true
    crosslingual-bench recommend --retrieval true --languages 9 --results results --json true
    crosslingual-bench recommend --languages yo,am,chr --results runs/emoji/seed-0/results

The survey's section 5.2 and its README, as the rules of `criteria.json`. Published numbers come
with their strength; measured ones are in tables of their own, by the data that they were measured
on.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from crosslingual.data.languages import parse_language
from crosslingual_benchmarks.cost import measured as costs
from crosslingual_benchmarks.recommend.advice import Entry, advise, is_active, load_rules
from crosslingual_benchmarks.recommend.languages import by_language, language_lines
from crosslingual_benchmarks.report.tables import DASH, render_plain
from crosslingual_benchmarks.results import Result, by_protocol, read_results

METRICS = {**costs.TASK_OF, "culture_score": "text_to_image"}
"""Metrics of result lines, and the task whose lines hold them."""


@dataclass
class RecommendSettings:
    """Settings of `crosslingual-bench recommend`: wishes and limits.

    Attributes:
        budget: dollars for training, for all languages together.
        languages: how many languages the model has to know, as a number; or which, as codes such
            as yo,am,chr, and what was measured in them is shown.
        culture: whether it has to draw or find the concepts of a culture.
        single_language: whether a model of one language is wanted.
        retrieval: whether it has to find pictures by text and text by pictures.
        generation: whether it has to draw pictures.
        deployment: whether it has to be small and fast in production.
        research: whether it is for research and prototypes.
        quality: whether quality comes before cost.
        max_adapter_mb: the most megabytes to ship beside the frozen base.
        native_pairs: how many pictures with captions in the languages you have; 0 is none.
        results: result files, or folders of them; their numbers are shown in tables of their own.
        json: print the answer as JSON.
    """

    budget: float | None = None
    languages: list[str] = field(default_factory=list)
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


def recommend(settings: RecommendSettings) -> Entry:
    """Prints the answer, as text or JSON, and returns it; raises as `advise` and `read_results`."""
    rules = load_rules()
    number, named = asked_languages(settings.languages)
    wishes = {n: v for n, v in asdict(settings).items() if n not in ("results", "json")}
    wishes["languages"] = number
    advice = advise(wishes, rules)
    results = read_results(settings.results) if settings.results else []
    measured = measured_numbers(results, wishes, rules)
    told = by_language(results, named, wishes) if named else []
    if settings.json:
        answer = advice | {"measured": measured, "by_language": told}
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        lines = [*language_lines(told, named), ""] if named else []
        print("\n".join([*lines, *_lines(advice, measured if settings.results else None)]))
    return advice


def asked_languages(words: Sequence[str]) -> tuple[int | None, list[str]]:
    """How many languages are asked for, and which where they are named.

    Raises:
        ValueError: a word is no language code.
    """
    if len(words) == 1 and words[0].lstrip("-").isdecimal():
        return int(words[0]), []
    return len(words) or None, [parse_language(word) for word in words]


def measured_numbers(results: Sequence[Result], wishes: Entry, rules: Entry) -> list[Entry]:
    """The wishes' metrics as result lines have them, by dataset and protocol.

    Returns:
        metric, unit, measured_on (dataset and protocol in words), values (method to its mean, the
        best first), and the languages that the means are over, which hours have not.
    """
    told, methods = rules["wishes"].values(), rules["methods"]
    wanted = {w["measured"] for w in told if is_active(w, wishes.get(w["setting"]))}
    found = [
        _means(metric, words, lines, methods)
        for metric in METRICS
        if metric in wanted
        for words, lines in by_protocol(results, METRICS[metric]).items()
    ]
    if "device_hours" in wanted:
        found += _hours(results, methods)
    return [table for table in found if table["values"]]


def _means(metric: str, words: str, lines: Sequence[Result], methods: Iterable[str]) -> Entry:
    """A metric's mean over the foreign languages that all methods with lines of it have."""
    by_method = {m: [line for line in lines if line["model"] == m] for m in methods}
    shares = {m: of for m, own in by_method.items() if (of := costs.mean_by_language(own, metric))}
    told = [set(of) for of in shares.values()]
    shared = costs.foreign_of(sorted(set.intersection(*told))) if told else ()
    means = {m: sum(of[n] for n in shared) / len(shared) for m, of in shares.items() if shared}
    best_first = sorted(means.items(), key=lambda pair: (-pair[1], pair[0]))
    return _table(metric, "0-1", words, best_first, shared)


def _hours(results: Sequence[Result], methods: Iterable[str]) -> Iterator[Entry]:
    """The device-hours of each method's trainings, by dataset."""
    by_dataset: dict[str, Counter[str]] = {}
    for paid in costs.training_costs(results, 1.0):
        if paid.arm in methods:
            by_dataset.setdefault(paid.dataset, Counter())[paid.arm] += paid.device_hours
    for dataset, hours in sorted(by_dataset.items()):
        fewest_first = sorted(hours.items(), key=lambda pair: (pair[1], pair[0]))
        yield _table("device_hours", "hours", dataset, fewest_first, ())


def _table(metric: str, unit: str, measured_on: str, values: Any, languages: Any) -> Entry:
    table = {"metric": metric, "unit": unit, "measured_on": measured_on}
    return table | {"values": dict(values), "languages": languages}


def _lines(advice: Entry, measured: Sequence[Entry] | None) -> Iterator[str]:
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
        empty = "Measured: the results hold nothing of these wishes' metrics."
        yield from ("",) if measured else ("", empty)
    for table in measured or ():
        over = f", mean of {' '.join(table['languages'])}" if table["languages"] else ""
        digits = 4 if table["unit"] == "hours" else 3
        rows = [[name, f"{value:.{digits}f}"] for name, value in table["values"].items()]
        yield f"Measured on {table['measured_on']}{over}"
        yield from (render_plain(["method", f"{table['metric']}, {table['unit']}"], rows), "")
    yield from ("", *advice["remarks"])


def _reasons(sign: str, reasons: list[Entry]) -> Iterator[str]:
    for reason in reasons:
        yield sign + reason["text"]
        for number in reason["evidence"]:
            text, note = number["text"], number["note"] and f"; {number['note']}"
            has_unit = any(letter.isalpha() or letter in "$%" for letter in text)
            told = text if has_unit else f"{text} {number['unit']}"
            where = f"{number['method']}, {number['column']}; {number['table']}"
            yield f"        published: {told} [{number['strength']}]: {where}{note}"
