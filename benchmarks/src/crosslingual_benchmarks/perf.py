"""The scripts of `benchmarks/perf`: each measures ratios of speed or memory within one run."""

import ast
from dataclasses import dataclass
from pathlib import Path

PERF_FOLDER = Path(__file__).parents[2] / "perf"


@dataclass(frozen=True)
class PerfScript:
    """A script and the first line of what it says of itself."""

    path: Path
    summary: str


def find_perf_scripts(folder: Path) -> list[PerfScript]:
    """Lists the scripts of a folder by name, without running or importing any.

    Raises:
        FileNotFoundError: where the folder holds no script.
    """
    paths = sorted(folder.glob("*.py"))
    if not paths:
        raise FileNotFoundError(
            f"no script in {folder}; install from a checkout: pip install -e benchmarks"
        )
    return [PerfScript(path, _summary(path)) for path in paths]


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return docstring.splitlines()[0] if docstring else ""


@dataclass
class PerfSettings:
    """`crosslingual-bench perf` has no settings."""


def perf(settings: PerfSettings) -> None:
    """Prints how to run each script of `benchmarks/perf`, and what it measures."""
    for script in find_perf_scripts(PERF_FOLDER):
        print(f"python {script.path}\n    {script.summary}")
