"""The command `iap`, which `python -m iap`, torchrun and deepspeed start as well."""

import sys

from crosslingual.cli.verbs import run_verbs
from iap.verbs import DESCRIPTION, VERBS


def main() -> int:
    """Runs a verb; `iap VERB --help` lists its settings."""
    return run_verbs("iap", DESCRIPTION, VERBS)


if __name__ == "__main__":
    sys.exit(main())
