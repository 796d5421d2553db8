"""The command `mulan`; `python -m mulan`, torchrun and deepspeed start it too."""

import sys

from crosslingual.cli.verbs import run_verbs
from mulan.verbs import DESCRIPTION, VERBS


def main() -> int:
    """Runs a verb; `mulan VERB --help` lists its settings."""
    return run_verbs("mulan", DESCRIPTION, VERBS)


if __name__ == "__main__":
    sys.exit(main())
