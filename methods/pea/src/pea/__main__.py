"""The command `pea`; `python -m pea`, torchrun and deepspeed start it too."""

import sys

from crosslingual.cli.verbs import run_verbs
from pea.verbs import DESCRIPTION, VERBS


def main() -> int:
    """Runs a verb; `pea VERB --help` lists its settings."""
    return run_verbs("pea", DESCRIPTION, VERBS)


if __name__ == "__main__":
    sys.exit(main())
