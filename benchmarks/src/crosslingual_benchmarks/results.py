"""What a result line is: JSON for each run and language, in the keys of CLIP_benchmark and ours.

Every number of the report comes from such lines. Published numbers do not: they stand in
`published.json` with their sources, and nothing here reads them.

| key | what |
|---|---|
| `task` | one of `TASKS` |
| `dataset` | its name; of shards the folder's with the index's hash |
| `model` | the arm: a method's name, or a baseline's such as `as_is` |
| `pretrained` | its weights: an id or a folder |
| `language` | of the texts, BCP-47; absent where the task has none |
| `metrics` | name to number; shares are fractions between 0 and 1 |
| `interval95` | bootstrap interval [low, high] of some of the metrics |
| `protocol` | what must be equal before two lines may stand in one table |
| `n_images`, `n_texts`, `n_ties` | sizes, where the task has them |
| `dataset_sha256`, `precision`, `versions`, `seed`, `wall_s` | to repeat the number |
| `command` | words that repeat it |
"""

import dataclasses
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Result = dict[str, Any]

TASKS = ("zeroshot_retrieval", "text_to_image", "training", "latency")
"""Retrieval both ways, which CLIP_benchmark names so; pictures from prompts; what training an arm
took; milliseconds a query."""

REQUIRED = ("task", "dataset", "model", "metrics", "protocol")


def make_result(task: str, **keys: Any) -> Result:
    """A line of that task with `keys` of the module's table, `REQUIRED` among them, checked, and
    with the versions of the libraries that it depends on.

    Raises:
        ValueError: as `check_result`.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "diffusers")}
    result = {"task": task, **keys, "versions": versions}
    check_result(result, "this result")
    return result


def check_result(result: Any, where: str) -> None:
    """Refuses what is no result line; `where` names it in the error.

    Raises:
        ValueError: keys are missing, the task is unknown, a metric is no finite number or a share
            outside 0 and 1.
    """
    missing = [key for key in REQUIRED if not isinstance(result, dict) or key not in result]
    if missing:
        raise ValueError(f"{where} is no result line: {', '.join(missing)} missing")
    if result["task"] not in TASKS:
        raise ValueError(f"{where}: no task {result['task']!r}; there are {', '.join(TASKS)}")
    for name, value in result["metrics"].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where}: {name} is {value!r}, not a number")
        if not math.isfinite(value):
            raise ValueError(f"{where}: {name} is {value}; look for a NaN in the model's output")
        is_share = "recall" in name or name in ("text_accuracy", "culture_score")
        if is_share and not 0 <= value <= 1:
            raise ValueError(f"{where}: {name} is {value}; shares are fractions from 0 to 1")


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
        # split("\n"): str.splitlines would also split inside a caption that holds U+2028
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                result = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is no JSON: {error}") from error
            check_result(result, where)
            key = json.dumps(
                [result.get(name) for name in ("task", "dataset", "model", "pretrained")]
                + [result.get("language"), result["protocol"], result.get("seed")],
                sort_keys=True,
            )
            kept.pop(key, None)
            kept[key] = result
    return list(kept.values())


def by_protocol(results: Sequence[Result], task: str) -> dict[str, list[Result]]:
    """The results of a task, apart by dataset and protocol, which one table may not mix.

    Returns:
        From a line of words that says dataset and protocol, sorted, to the results under it.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result["task"] == task:
            words = [f"{name} {value}" for name, value in sorted(result["protocol"].items())]
            groups.setdefault(", ".join([str(result["dataset"]), *words]), []).append(result)
    return dict(sorted(groups.items()))
