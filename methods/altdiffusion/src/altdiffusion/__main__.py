"""The command `altdiffusion`; `python -m altdiffusion`, torchrun and deepspeed start it too."""

import sys
from collections.abc import Sequence

from altdiffusion.verbs import DESCRIPTION, VERBS
from crosslingual.cli.verbs import run_verbs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; `altdiffusion VERB --help` lists its settings."""
    return run_verbs("altdiffusion", DESCRIPTION, VERBS, argv)


if __name__ == "__main__":
    sys.exit(main())
