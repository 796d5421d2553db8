"""What to expect in languages that are named: measured numbers, and means of languages alike."""

from collections.abc import Iterator, Sequence
from typing import Any

from crosslingual.worlds import find_worlds
from crosslingual_benchmarks.report.arms import Arm
from crosslingual_benchmarks.report.fairness import HALF, kinds_of, spread_of
from crosslingual_benchmarks.report.groups import Group, groups_of
from crosslingual_benchmarks.report.tables import DASH, render_plain
from crosslingual_benchmarks.results import Result

Entry = dict[str, Any]
TASKS = {"text_to_image": "text_accuracy", "zeroshot_retrieval": "mean_recall"}
WISHES = {"text_to_image": "generation", "zeroshot_retrieval": "retrieval"}
ABOUT = "≈"


def by_language(results: Sequence[Result], languages: Sequence[str], wishes: Entry) -> list[Entry]:
    """What each arm has in the languages, by dataset and protocol; of pictures or of search alone
    if one of them is wished for. Prompts of a training split do not count: arms may have read them.

    Returns:
        metric, measured_on, english (the English model on English prompts), kinds (what the methods
        knew of the languages), and arms, the highest mean first: label, measured and expected (by
        language), and the mean and the worst tenth over all foreign languages. A language without a
        line is expected to have the mean of the zero-shot languages of its kind.
    """
    results = [line for line in results if line["protocol"].get("split") != "train"]
    wanted = [task for task, wish in WISHES.items() if wishes.get(wish)]
    tasks = wanted or list(TASKS)
    groups = [(group, TASKS[task]) for task in tasks for group in groups_of(results, task)]
    tables = [_table(group, metric, list(languages)) for group, metric in groups]
    return [table for table in tables if table["arms"]]


def _table(group: Group, metric: str, languages: list[str]) -> Entry:
    world = find_worlds().get(str(group.results[0]["dataset"]))
    facts = {**(world.language_facts if world else {}), **group.facts}
    zero_shot = [x for x in group.languages if x not in group.trained]
    alike = kinds_of(zero_shot, facts, ())
    kinds = kinds_of(languages, facts, group.trained)
    kind_of = {x: kind for kind, held in kinds.items() for x in held}
    arms = [
        _row(arm, group, metric, {x: alike.get(kind_of.get(x, ""), zero_shot) for x in languages})
        for arm in group.rows
        if not arm.is_bound and group.shares(arm, metric)
    ]
    arms.sort(key=lambda row: (-len(row["measured"]), -_mean(row["measured"] or row["expected"])))
    told = {"metric": metric, "measured_on": group.name, "english": group.english(metric)}
    return told | {"languages": languages, "kinds": kinds, "arms": arms}


def _row(arm: Arm, group: Group, metric: str, alike: dict[str, list[str]]) -> Entry:
    shares = group.shares(arm, metric)
    held = {x: number.value for x in alike if (number := arm.number(metric, x)) is not None}
    expected = {
        x: mean.value
        for x, like in alike.items()
        if x not in held and (mean := arm.mean(metric, [y for y in like if y != "en"])[0])
    }
    spread = spread_of(shares, None, {}, ())
    return {
        "label": arm.label,
        "measured": held,
        "expected": expected,
        "mean": spread.mean,
        "worst_tenth": spread.worst,
        "num_languages": spread.num_languages,
    }


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares) if shares else 0.0


def language_lines(tables: Sequence[Entry], languages: Sequence[str]) -> Iterator[str]:
    """The tables as text, each with its answer in a sentence."""
    if not tables:
        yield f"Nothing measured says what to expect in {' '.join(languages)}: give --results the "
        yield "folder of a comparison that tests them, such as one of compare --suite emoji."
    for table in tables:
        english = table["english"]
        told = "" if english is None else f"; English {100 * english:.1f}"
        yield f"{table['metric']} in %, measured on {table['measured_on']}{told}"
        heads = ["arm", *table["languages"], "mean of all", "worst tenth", "of languages"]
        yield render_plain(heads, [_cells(row, table["languages"]) for row in table["arms"]])
        yield from (f"{' '.join(held)}: {kind}" for kind, held in table["kinds"].items())
        if any(row["expected"] for row in table["arms"]):
            yield f"{ABOUT} no line: the arm's mean over zero-shot languages of the same kind"
        yield from _answer(table)
        yield ""


def _cells(row: Entry, languages: Sequence[str]) -> list[str]:
    numbers = {x: f"{ABOUT}{100 * value:.1f}" for x, value in row["expected"].items()}
    numbers |= {x: f"{100 * value:.1f}" for x, value in row["measured"].items()}
    means = [f"{100 * row[key]:.1f}" for key in ("mean", "worst_tenth")]
    shown = (numbers.get(x, DASH) for x in languages)
    return [row["label"], *shown, *means, str(row["num_languages"])]


def _answer(table: Entry) -> Iterator[str]:
    """Which arm has the highest mean in the languages, and which languages none serves."""
    best = table["arms"][0]
    shares = best["measured"] or best["expected"]
    what = "highest measured mean" if best["measured"] else "highest expectation"
    yield f"{best['label']} has the {what} in {' '.join(shares)}: {100 * _mean(shares):.1f}"
    if table["english"] is None:
        return
    limit = HALF * table["english"]
    served = {x for row in table["arms"] for x, v in row["measured"].items() if v >= limit}
    measured = {x: None for row in table["arms"] for x in row["measured"]}
    if left := [x for x in table["languages"] if x in measured and x not in served]:
        yield f"No arm has half of English in {' '.join(left)}"
