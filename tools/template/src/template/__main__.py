"""The command `template`; `python -m template`, torchrun and deepspeed start it too."""

import sys

from crosslingual.cli.verbs import run_verbs
from template.verbs import DESCRIPTION, VERBS


def main() -> int:
    """Runs a verb; `template VERB --help` lists its settings."""
    return run_verbs("template", DESCRIPTION, VERBS)


if __name__ == "__main__":
    sys.exit(main())
