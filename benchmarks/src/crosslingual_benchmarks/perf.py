"""The cases of `benchmarks/perf`: each measures ratios of speed or memory within one run."""

import ast
from dataclasses import dataclass
from pathlib import Path

PERF_FOLDER = Path(__file__).parents[2] / "perf" / "cases"


@dataclass(frozen=True)
class PerfCase:
    """A case's file and the first line of its docstring."""

    path: Path
    summary: str


def find_perf_cases(folder: Path) -> list[PerfCase]:
    """Lists the cases of a folder by name, without running or importing any.

    Raises:
        FileNotFoundError: where the folder holds no case.
    """
    paths = sorted(set(folder.glob("*.py")) - {folder / "__init__.py"})
    if not paths:
        raise FileNotFoundError(
            f"no case in {folder}; install from a checkout: pip install -e benchmarks"
        )
    return [PerfCase(path, _summary(path)) for path in paths]


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return docstring.splitlines()[0] if docstring else ""


@dataclass
class PerfSettings:
    """`crosslingual-bench perf` has no settings."""


def perf(settings: PerfSettings) -> None:
    """Prints how to run each case of `benchmarks/perf`, and what it measures."""
    for case in find_perf_cases(PERF_FOLDER):
        print(f"python {PERF_FOLDER.with_name('run.py')} {case.path.stem}\n    {case.summary}")
