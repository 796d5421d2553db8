"""The command `mclip`; `python -m mclip VERB` and `torchrun -m mclip VERB` are the same."""

import sys
from collections.abc import Sequence

from crosslingual.cli.verbs import run_verbs
from mclip.verbs import DESCRIPTION, VERBS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; `mclip VERB --help` lists its settings."""
    return run_verbs("mclip", DESCRIPTION, VERBS, argv)


if __name__ == "__main__":
    sys.exit(main())
