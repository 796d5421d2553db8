"""The command `crosslingual`: pictures and captions into shards, and a look into them.

    crosslingual shards --source world --num_samples 2000 --languages en de --output_dir shards
    crosslingual inspect shards

A verb is a line in `VERBS`.
"""

import sys
from collections.abc import Sequence

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "shards": (
        "write pictures and captions as WebDataset shards",
        "crosslingual.cli.shards:run_shards",
    ),
    "inspect": (
        "say what shards hold: counts, languages, key names",
        "crosslingual.cli.shards:run_inspect",
    ),
    "url-table": (
        "make of CC3M or CC12M the table that img2dataset takes",
        "crosslingual.cli.shards:run_url_table",
    ),
}
"""Verb to its line in `--help` and the `module:function` that takes the words after it."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command's entry point."""
    words = sys.argv[1:] if argv is None else argv
    return run_verbs("crosslingual", "Data for cross-lingual image generation.", VERBS, words)


if __name__ == "__main__":
    raise SystemExit(main())
