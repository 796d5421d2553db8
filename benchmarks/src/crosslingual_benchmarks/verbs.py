"""The verbs of `crosslingual-bench`: each is a function and the type of its settings."""

import sys
from collections.abc import Sequence
from pkgutil import resolve_name

from crosslingual.cli.verbs import run_verb, run_verbs

PROG = "crosslingual-bench"
DESCRIPTION = """\
One yardstick for every cross-lingual method: the same work, the same prompts, the same measures."""
P = "crosslingual_benchmarks"
VERBS = {
    "compare": (
        "train and measure every method and baseline of a suite",
        f"{P}.compare.verb:compare",
        "CompareSettings",
    ),
    "ablate": ("compare a method's own choices", f"{P}.compare.verb:ablate", "AblateSettings"),
    "retrieval": (
        "Recall@K on published benchmarks",
        f"{P}.retrieval.verb:retrieval",
        "RetrievalSettings",
    ),
    "generation": (
        "FID, KID, CLIP score, text accuracy, culture score",
        f"{P}.generation.verb:generation",
        "GenerationSettings",
    ),
    "latency": ("milliseconds a query, on this machine", f"{P}.latency:latency", "LatencySettings"),
    "cost": (
        "hours, price and price a point, measured and published",
        f"{P}.cost.verb:cost",
        "CostSettings",
    ),
    "recommend": (
        "which method, by budget and wishes, and why",
        f"{P}.recommend.verb:recommend",
        "RecommendSettings",
    ),
    "report": (
        "a page, tables and plots of result files",
        f"{P}.report.verb:report",
        "ReportSettings",
    ),
    "perf": ("list the scripts that measure speed and memory", f"{P}.perf:perf", "PerfSettings"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0, or 2 for an error of the user's."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in VERBS:
        _, target, settings = VERBS[words[0]]
        module = target.partition(":")[0]
        return run_verb(
            f"{PROG} {words[0]}",
            resolve_name(f"{module}:{settings}"),
            resolve_name(target),
            words[1:],
        )
    return run_verbs(PROG, DESCRIPTION, {n: v[:2] for n, v in VERBS.items()}, words)
