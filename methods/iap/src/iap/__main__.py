"""The command `iap`; `python -m iap`, torchrun and deepspeed start it too."""

import sys

from crosslingual.cli.verbs import run_verbs
from iap.verbs import DESCRIPTION, VERBS


def main() -> int:
    """Runs a verb; `iap VERB --help` lists its settings."""
    return run_verbs("iap", DESCRIPTION, VERBS)


if __name__ == "__main__":
    sys.exit(main())
