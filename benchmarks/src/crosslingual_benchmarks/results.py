"""Result lines: JSON for each run and language, in the keys of CLIP_benchmark and ours.

Every measured number of the report comes from such lines. Published numbers are in `published.json`
with their sources, and nothing here reads them.

| key | what |
|---|---|
| `task` | one of `TASKS` |
| `dataset` | its name; of shards the folder's with the index's hash |
| `model` | the arm: a method's name, or a baseline's such as `as_is` |
| `pretrained` | its weights: an id or a folder |
| `point` | the moment of a training that the line measures; absent where it is the end |
| `language` | of the texts, BCP-47; absent where the task has none; `de+ja` of mixed prompts |
| `language_facts` | what a world says of it: `name`, `encoder`, `script`, `family` |
| `metrics` | name to number; shares are fractions between 0 and 1 |
| `interval95` | bootstrap interval [low, high] of some of the metrics |
| `protocol` | all that must be equal before two lines may be in one table |
| `n_images`, `n_texts`, `n_ties` | sizes, where the task has them |
| `num_cut_prompts`, `n_cut_texts` | texts that an encoder reads only in part |
| `dataset_sha256`, `precision`, `versions`, `seed`, `wall_s` | to repeat the number |
| `question`, `answers` | of a training: what its suite asks, and the cells that its arm fills |
| `command` | words that repeat it |
"""

import dataclasses
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Required

from typing_extensions import TypedDict

from crosslingual.data.text import iter_json_lines
from crosslingual.worlds import find_worlds
from crosslingual_benchmarks.reading import check_shape

TASKS = (
    "zeroshot_retrieval",
    "text_to_image",
    "training",
    "training_curve",
    "code_mixing",
    "latency",
    "comparison",
)
"""Retrieval both ways, by CLIP_benchmark's name; pictures from prompts; the cost of training an
arm, and its quality on the way; pictures from prompts in two languages; milliseconds a query; how
a comparison's time divides.
"""

REQUIRED = ("task", "dataset", "model", "metrics", "protocol")
LARGEST = 1e18  # no measurement comes near it, and sums and products of such numbers stay finite

Scalar = str | bool | int | float | None


class Sample(TypedDict, total=False):
    """A prompt of a line, and whether its picture was judged to be right."""

    prompt: Required[str]
    is_right: bool | None


class Stage(TypedDict, total=False):
    """One of an arm's trainings."""

    steps: float
    step_s: float


class Question(TypedDict, total=False):
    """What a comparison asks, of an arm that answers it."""

    title: Required[str]
    text: Required[str]


class Answer(TypedDict, total=False):
    """A cell of the table that answers a question: an arm's mean of a measure over languages, less
    that of the arm `against`.
    """

    row: Required[str]
    column: Required[str]
    languages: Required[list[str]]
    against: str | None
    measure: str


class Result(TypedDict, total=False):
    """The types of a line's keys; other keys may hold anything."""

    task: Required[str]
    dataset: Required[str]
    model: Required[str]
    metrics: Required[dict[str, float]]
    protocol: Required[dict[str, Scalar | list[Scalar]]]
    pretrained: str | None
    point: str
    language: str | None
    language_facts: dict[str, str]
    interval95: dict[str, list[float]]
    quartiles: dict[str, list[float]]
    mean_recall: float
    total_parameters: float
    n_images: float
    n_texts: float
    n_ties: float
    wall_s: float
    seed: int | None
    precision: str | None
    versions: dict[str, str]
    dataset_sha256: str | None
    command: str | list[str] | None
    stages: list[Stage]
    samples: list[Sample]
    warnings: list[str]
    trained_languages: list[str]
    prompt_language: str
    grids: list[str]
    question: Question
    answers: list[Answer]


def make_result(task: str, **keys: Any) -> Result:
    """A line of that task with `keys` of the module's table, checked, and with the versions of the
    libraries that it depends on.

    Raises:
        ValueError: as `check_result`.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "diffusers")}
    result = {"task": task, **keys, "versions": versions}
    check_result(result, "this result")
    return result


def check_result(result: Any, where: str) -> None:
    """Refuses what is not a result line; `where` names it in the error.

    Raises:
        ValueError: a key is missing or of the wrong type, the task is unknown, a training lacks
            its seconds or processes, a number is not finite or absurd, a share lies outside 0 and
            1, an interval ends before it starts, or a picture lies outside the results' folder.
    """
    missing = [key for key in REQUIRED if not isinstance(result, dict) or key not in result]
    if missing:
        raise ValueError(f"{where} is no result line: {', '.join(missing)} missing")
    check_shape(Result, result, where)
    if result["task"] not in TASKS:
        raise ValueError(f"{where}: no task {result['task']!r}; there are {', '.join(TASKS)}")
    needed = ("train_s", "num_processes") if result["task"] == "training" else ()
    if missing := [name for name in needed if name not in result["metrics"]]:
        raise ValueError(f"{where}: its metrics have no {' and no '.join(missing)}")
    if result.get("language") == "":
        raise ValueError(f"{where}: language is empty; leave it out where texts have none")
    for name in {**result["metrics"], **result}:
        value = metric_of(result, name)
        if value is None:
            continue
        is_share = "recall" in name or name in ("text_accuracy", "culture_score")
        if is_share and not 0 <= value <= 1:
            raise ValueError(f"{where}: {name} is {value}; shares are fractions from 0 to 1")
        if not math.isfinite(value):
            raise ValueError(f"{where}: {name} is {value}; look for a NaN in the model's output")
        if abs(value) > LARGEST:
            raise ValueError(f"{where}: {name} is {value}; no measurement is beyond {LARGEST:g}")
    for key in ("interval95", "quartiles"):
        for name, ends in result.get(key, {}).items():
            if len(ends) != 2 or not -LARGEST <= ends[0] <= ends[1] <= LARGEST:
                raise ValueError(f"{where}: {key} of {name} is {ends}, not [low, high]")
    for name in result.get("grids", ()):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"{where}: grids names {name!r}, outside of the results' folder; give a picture "
                "that you trust to --grids"
            )


def metric_of(result: Result, name: str) -> float | None:
    """A line's number of that name, among its metrics or, as `mean_recall`, at the top level."""
    value = result["metrics"].get(name, result.get(name))
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def facts_of(dataset: str, language: str) -> dict[str, dict[str, str]]:
    """What an installed world says of a language, as the key `language_facts` of a result line;
    empty for other datasets, and for worlds that say nothing.
    """
    world = find_worlds().get(dataset)
    facts = world.language_facts.get(language) if world else None
    return {"language_facts": dict(facts)} if facts else {}


def command_of(prog: str, settings: Any) -> str:
    """The words that repeat a run: the settings that are not at their defaults."""
    words = prog.split()
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        is_list = isinstance(value, list)
        if value != ([] if is_list else each.default):
            words += [f"--{each.name}", *map(str, value if is_list else [value])]
    return shlex.join(words)


def read_results(paths: Iterable[str | Path]) -> list[Result]:
    """The lines of result files, in order; of lines that repeat the same measurement (all but
    metrics and times equal), the last.

    Of a folder, its `*.json` files are taken.

    Raises:
        FileNotFoundError: there is no such file, or a folder without any.
        ValueError: a line is no result; file and line number are named.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.json")) if path.is_dir() else [path] * path.is_file()
        if not found:
            raise FileNotFoundError(f"no result files at {path}: give *.json files or a folder")
        files += found
    kept: dict[str, Result] = {}
    for file in files:
        for number, result in iter_json_lines(file):
            check_result(result, f"{file} line {number}")
            key = json.dumps(
                [result.get(name) for name in ("task", "dataset", "model", "pretrained", "point")]
                + [result.get("language"), result["protocol"], result.get("seed")],
                sort_keys=True,
            )
            kept.pop(key, None)
            kept[key] = result
    return list(kept.values())


def by_protocol(results: Sequence[Result], task: str) -> dict[str, list[Result]]:
    """The results of a task by dataset and protocol, which one table may not mix.

    Returns:
        Results by a line of words that names dataset and protocol, sorted.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result["task"] == task:
            words = [f"{name} {value}" for name, value in sorted(result["protocol"].items())]
            groups.setdefault(", ".join([str(result["dataset"]), *words]), []).append(result)
    return dict(sorted(groups.items()))
