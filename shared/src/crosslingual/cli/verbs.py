"""Commands made of verbs: `crosslingual VERB`, `pea VERB`, each with settings of its own.

A verb's module, and what reads settings, is imported when it is called, so that `NAME --help`
answers at once.
"""

import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def run_verbs(
    prog: str, description: str, verbs: Mapping[str, tuple[str, str]], argv: Sequence[str]
) -> int:
    """Runs the verb that `argv` starts with; without one, lists the verbs.

    Args:
        prog: the command's name.
        description: one line on it, for the list.
        verbs: verb to its line in `--help` and the `module:function` that takes the words after it.
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
    from crosslingual.cli.settings import nearest_name, run_command

    def run() -> int | None:
        if argv[0] not in verbs:
            near = nearest_name(argv[0], list(verbs))
            raise ValueError(f"{prog} has no verb '{argv[0]}'{near or ';'} see {prog} --help")
        return pkgutil.resolve_name(verbs[argv[0]][1])(list(argv[1:]))

    return run_command(run)


def run_verb(
    prog: str,
    settings_class: type,
    function: Callable[[Any], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs one verb: its words become settings, its user's errors one line.

    Args:
        prog: command and verb, as help and errors print them.
        settings_class: the dataclass of the verb's settings.
        function: called with the settings.
        argv: the words after the verb; those of the process if None (`python -m pea.train`).

    Returns:
        The exit code.
    """
    from crosslingual.cli.settings import parse_settings, run_command

    words = sys.argv[1:] if argv is None else argv

    def run() -> None:
        function(parse_settings(settings_class, words, prog=prog))

    return run_command(run)
