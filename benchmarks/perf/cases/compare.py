"""How a comparison's wall time divides, and what is left for none of its commands.

    crosslingual-bench compare --suite testbed --output_dir runs/compare
    python benchmarks/perf/run.py compare --output_dir runs/compare

A moment in which two commands run is split between them. Target: at most 5 % for everything else.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

TARGET = 0.05


def main(argv: Sequence[str]) -> None:
    """Prints seconds and shares by kind of work, of all runs that came to their end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True, help="folder of a finished comparison")
    path = Path(parser.parse_args(argv).output_dir) / "times.json"
    if not path.is_file():
        parser.error(f"no {path}: run crosslingual-bench compare to its end first")
    seconds = json.loads(path.read_text(encoding="utf-8"))
    total = sum(seconds.values())
    for kind, value in seconds.items():
        told = f"  (target <= {TARGET:.0%})" if kind == "else" else ""
        print(f"{kind:12} {value:8.1f} s {value / total:7.1%}{told}")
