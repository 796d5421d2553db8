"""What a result line is: JSON for each run and language, in the keys of CLIP_benchmark and ours.

Every number of a report comes from such lines.

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

import json
import math
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


def append_result(path: str | Path, result: Result) -> None:
    """Appends a result to a file as one line of JSON; lines that are there are never rewritten."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())  # one write: two runs at a time do not mix their lines
