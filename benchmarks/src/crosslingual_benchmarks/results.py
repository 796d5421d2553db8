"""Result files: reading the lines that `crosslingual.evaluation.results` defines and writes.

Every number of the report comes from such lines. Published numbers do not: they stand in
`published.json` with their sources, and nothing here reads them.
"""

import dataclasses
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crosslingual.evaluation.results import Result, check_result


def command_of(prog: str, settings: Any) -> str:
    """The words that repeat a run: the settings that are not at their defaults.

    Args:
        prog: command and verb.
        settings: the verb's dataclass.
    """
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

    Args:
        paths: files, or folders whose `*.json` files are taken.

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
