"""The command `crosslingual-bench`."""

import sys

from crosslingual.cli.verbs import run_verbs

DESCRIPTION = """\
One yardstick for every cross-lingual method: the same work, the same prompts, the same measures."""

PACKAGE = "crosslingual_benchmarks"
VERBS = {
    "compare": (
        "train and measure every method and baseline of a suite",
        f"{PACKAGE}.compare.verb:main_compare",
    ),
    "ablate": ("compare a method's own choices", f"{PACKAGE}.compare.verb:main_ablate"),
    "retrieval": ("Recall@K on published benchmarks", f"{PACKAGE}.retrieval:main"),
    "generation": (
        "FID, KID, CLIP score, text accuracy, culture score",
        f"{PACKAGE}.generation:main",
    ),
    "latency": ("milliseconds a query, on this machine", f"{PACKAGE}.latency:main"),
    "cost": ("hours, price and price a point, measured and published", f"{PACKAGE}.cost:main"),
    "recommend": ("which method, by budget and wishes, and why", f"{PACKAGE}.recommend:main"),
    "report": ("a page, tables and plots of result files", f"{PACKAGE}.report.verb:main"),
    "perf": ("list the scripts that measure speed and memory", f"{PACKAGE}.perf:main"),
}


def main() -> int:
    """Runs one verb and returns the exit code: 0, or 2 for an error of the user's."""
    return run_verbs("crosslingual-bench", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
