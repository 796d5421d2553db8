"""The command `crosslingual-bench`."""

import argparse
import sys

from crosslingual.settings import run_command
from crosslingual_benchmarks.perf import PERF_FOLDER, find_perf_scripts


def list_perf_scripts() -> None:
    """Prints how to run each script of `benchmarks/perf`, and what it measures."""
    for script in find_perf_scripts(PERF_FOLDER):
        print(f"python {script.path}\n    {script.summary}")


def main() -> int:
    """Runs one verb and returns the exit code: 0, or 2 for an error of the user's."""
    parser = argparse.ArgumentParser(prog="crosslingual-bench", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("perf", help="list the scripts that measure speed and memory")
    parser.parse_args()
    return run_command(list_perf_scripts)


if __name__ == "__main__":
    sys.exit(main())
