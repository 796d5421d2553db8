"""`crosslingual-bench VERB`, the same as `python -m crosslingual_benchmarks VERB`."""

import sys
from collections.abc import Sequence

from crosslingual.cli.verbs import run_verbs
from crosslingual_benchmarks.verbs import DESCRIPTION, VERBS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0, or 2 for an error of the user's."""
    return run_verbs("crosslingual-bench", DESCRIPTION, VERBS, argv)


if __name__ == "__main__":
    sys.exit(main())
