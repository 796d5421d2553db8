"""The cases of `benchmarks/perf`: each measures ratios of speed or memory within one run."""

import ast
from dataclasses import dataclass
from pathlib import Path

PERF_FOLDER = Path(__file__).parents[2] / "perf" / "cases"


def find_perf_cases(folder: Path) -> dict[str, str]:
    """The cases of a folder by name, each with the first line of its docstring; none is imported.

    Raises:
        FileNotFoundError: the folder holds no case.
    """
    paths = sorted(set(folder.glob("*.py")) - {folder / "__init__.py"})
    if not paths:
        raise FileNotFoundError(
            f"no case in {folder}; install from a checkout: pip install -e benchmarks"
        )
    docstrings = {p.stem: ast.get_docstring(ast.parse(p.read_text("utf-8"))) for p in paths}
    return {name: (text or "").partition("\n")[0] for name, text in docstrings.items()}


@dataclass
class PerfSettings:
    """`crosslingual-bench perf` has no settings."""


def perf(settings: PerfSettings) -> None:
    """Prints how to run each case of `benchmarks/perf`, and what it measures."""
    for name, summary in find_perf_cases(PERF_FOLDER).items():
        print(f"python {PERF_FOLDER.with_name('run.py')} {name}\n    {summary}")
