"""The command `crosslingual`: pictures and captions into shards, and a look into them.

    crosslingual shards --source world --num_samples 2000 --languages en de --output_dir shards
    crosslingual inspect shards

A verb is a line in `VERBS`; methods build their own commands of verbs with `run_verbs`.
"""

import pkgutil
import sys
from collections.abc import Mapping, Sequence

from crosslingual.settings import nearest_name, run_command

VERBS = {
    "shards": (
        "write pictures and captions as WebDataset shards",
        "crosslingual.shard_commands:run_shards",
    ),
    "inspect": (
        "say what shards hold: counts, languages, key names",
        "crosslingual.shard_commands:run_inspect",
    ),
    "url-table": (
        "make of CC3M or CC12M the table that img2dataset takes",
        "crosslingual.shard_commands:run_url_table",
    ),
}
"""Verb to its line in `--help` and the `module:function` that takes the words after it."""


def run_verbs(
    prog: str, description: str, verbs: Mapping[str, tuple[str, str]], argv: Sequence[str]
) -> int:
    """Runs the verb that `argv` starts with; without one, lists the verbs.

    Args:
        prog: the command's name.
        description: one line on it, for the list.
        verbs: as `VERBS` is.
        argv: the words after the command's name.

    Returns:
        The exit code: the verb's, or 2 after an error of the user's, which is printed.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{description}\n\nusage: {prog} VERB [--name value ...]\n")
        width = max(map(len, verbs))
        for name, (summary, _) in verbs.items():
            print(f"  {name:{width}}  {summary}")
        print(f"\n{prog} VERB --help lists a verb's settings.")
        return 0

    def run() -> int | None:
        if argv[0] not in verbs:
            near = nearest_name(argv[0], list(verbs))
            raise ValueError(f"{prog} has no verb '{argv[0]}'{near}; see {prog} --help")
        return pkgutil.resolve_name(verbs[argv[0]][1])(list(argv[1:]))

    return run_command(run)


def main(argv: Sequence[str] | None = None) -> int:
    """The command's entry point."""
    words = sys.argv[1:] if argv is None else argv
    return run_verbs("crosslingual", "Data for cross-lingual image generation.", VERBS, words)


if __name__ == "__main__":
    raise SystemExit(main())
