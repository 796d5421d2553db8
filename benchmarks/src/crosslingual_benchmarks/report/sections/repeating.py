"""How to repeat each number: commands, seeds, versions and hashes; one row for lines alike."""

import json
import shlex
from collections.abc import Sequence

from crosslingual_benchmarks.report.arms import LABELS
from crosslingual_benchmarks.report.document import Cell, Section, Table
from crosslingual_benchmarks.report.languages import in_order
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result

THREADS = (
    "OMP_NUM_THREADS, the number of threads that a process adds with, changes the last bits of "
    "sums, and so pictures and numbers a little; compare runs every command with one thread."
)
HEADS = ["task", "dataset", "arm", "command", "weights", "languages", "seed", "precision"]
HEADS += ["versions", "wall time, s", "dataset's SHA-256"]


def repeating_section(results: Sequence[Result], report_command: str) -> Section:
    """The section on how to repeat the numbers."""
    alike: dict[str, list[Result]] = {}
    for result in results:
        alike.setdefault(_key(result), []).append(result)
    rows = [_row(lines) for lines in alike.values()]
    silent = sum("command" not in result for result in results)
    paragraphs = [f"This report: {report_command}", THREADS]
    if silent:
        paragraphs.append(
            f"{silent} of {len(results)} result lines do not say which command made them."
        )
    title = f"Settings of {len(results)} result lines; lines that differ in language alone are one"
    table = Table("repeating", title, HEADS, rows, num_head_cells=3, is_folded=True)
    return Section("repeating", "How to repeat each number", paragraphs, [table])


def command_words(result: Result) -> str:
    """A line's command as typed into a shell; a dash where it has none."""
    command = result.get("command")
    return shlex.join(map(str, command)) if isinstance(command, list) else command or DASH


def _key(result: Result) -> str:
    names = ("task", "dataset", "model", "pretrained", "seed", "precision", "versions")
    told = [result.get(name) for name in (*names, "dataset_sha256", "protocol")]
    return json.dumps([*told, command_words(result)], sort_keys=True)


def _row(lines: Sequence[Result]) -> list[Cell]:
    first = lines[0]
    languages = in_order({line["language"] for line in lines if line.get("language")})
    versions = [f"{name} {version}" for name, version in first.get("versions", {}).items()]
    times = [line["wall_s"] for line in lines if "wall_s" in line]
    heads = [first["task"], first["dataset"], LABELS.get(first["model"], first["model"])]
    texts = [
        first.get("pretrained"),
        " ".join(languages),
        first.get("seed"),
        first.get("precision"),
        ", ".join(versions),
        _span(times),
    ]
    return [
        *(Cell(str(text)) for text in heads),
        Cell(command_words(first), is_code=True),
        *(Cell(DASH if text in (None, "") else str(text)) for text in texts),
        Cell(first.get("dataset_sha256") or DASH, is_code=True),
    ]


def _span(times: Sequence[float]) -> str:
    if not times:
        return ""
    low, high = f"{min(times):.1f}", f"{max(times):.1f}"
    return low if low == high else f"{low} to {high}"
