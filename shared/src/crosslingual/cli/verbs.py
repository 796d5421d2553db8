"""Commands made of verbs: `crosslingual VERB`, `pea VERB`, each with settings of its own.

    VERBS = {"train": Verb("train an adapter", "pea.train:train", "pea.settings:TrainSettings")}

A package's `__main__.py` calls `run_verbs`, so that `pea train`, `python -m pea train`,
`torchrun --nproc_per_node 2 -m pea train` and `deepspeed --module pea train` are the same.

A verb's modules are imported when it is called, so that `NAME --help` answers at once.
"""

import contextlib
import dataclasses
import errno
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from crosslingual.data.text import printable
from crosslingual.frozen.tokens import say_cut

_USER_ERRNOS = (
    "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EEXIST EISDIR ENOTDIR ENOTEMPTY ENAMETOOLONG".split()
)

_FLAG = re.compile(r"(?<![\w-])--([a-zA-Z]\w*)")
_CLAUSE = re.compile(r"(; |: |, or |, | or )")


@dataclass(frozen=True)
class Verb:
    """A function and its settings.

    Attributes:
        summary: its line in the command's `--help`.
        function: `module:function`, called with the settings.
        settings: `module:Class` of the settings, a dataclass.
        positional: the setting that words before the first flag belong to.
        takes_any_config: whether the settings are those of the verb that the `--config` file names
            in its line `verb:`, as `info` takes them; `settings` are those without a file.
    """

    summary: str
    function: str
    settings: str
    positional: str | None = None
    takes_any_config: bool = False


def run_verbs(
    prog: str, description: str, verbs: Mapping[str, Verb], argv: Sequence[str] | None = None
) -> int:
    """Runs the verb that `argv`, or the process's own words, start with; without one, lists the
    verbs under the `description`. Returns the exit code of `run_command`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    while words and words[0].startswith(("--local_rank=", "--local-rank=")):
        del words[0]  # the deepspeed launcher's; the environment says the same
    if not words or words[0] in ("-h", "--help"):
        return run_command(lambda: _list_verbs(prog, description, verbs))
    name, *rest = words
    code = run_command(lambda: _run_verb(prog, name, verbs, rest))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from crosslingual.training.processes import leave_processes

        leave_processes(code)
    return code


def _list_verbs(prog: str, description: str, verbs: Mapping[str, Verb]) -> None:
    print(f"{description}\n\nusage: {prog} VERB [--name value ...]\n")
    width = max(map(len, verbs))
    for name, verb in verbs.items():
        print(f"  {name:{width}}  {verb.summary}")
    print(f"\n{prog} VERB --help lists a verb's settings.")


def _run_verb(prog: str, name: str, verbs: Mapping[str, Verb], words: list[str]) -> None:
    from crosslingual.cli.settings import config_verb, nearest_name, parse_settings

    if name not in verbs:
        near = nearest_name(name, list(verbs))
        raise ValueError(f"{prog} has no verb '{name}'{near or ';'} see {prog} --help")
    verb = verbs[name]
    if verb.positional and words and not words[0].startswith("-"):
        words = [f"--{verb.positional}", *words]
    of_config = config_verb(words) if verb.takes_any_config else None
    if of_config is not None and of_config not in verbs:
        raise ValueError(f"the config's verb '{of_config}' is none of {prog}; see {prog} --help")
    cls = pkgutil.resolve_name(verbs[of_config].settings if of_config else verb.settings)
    settings = parse_settings(cls, words, prog=f"{prog} {name}", description=f"{verb.summary}.")
    with own_flags(cls):
        pkgutil.resolve_name(verb.function)(settings)


@contextlib.contextmanager
def own_flags(cls: type) -> Iterator[None]:
    """Lets errors name no flag that the settings `cls` lack. Shared code names the flags that verbs
    have; those that this one calls otherwise get its name, and remedies by others are left out.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        own = {field.name for field in dataclasses.fields(cls)} | {"config", "help"}
        former = getattr(cls, "FORMER_NAMES", {})
        said = _FLAG.sub(lambda m: f"--{former.get(m[1], m[1])}", str(error))
        text, *rest = _CLAUSE.split(said)
        for between, clause in zip(rest[::2], rest[1::2], strict=True):
            if own.issuperset(_FLAG.findall(clause)) or "`" in clause:  # another command's flags
                text += between + clause
        if text != str(error):
            raise (FileNotFoundError if isinstance(error, OSError) else ValueError)(text) from error
        raise


def run_verb(
    prog: str,
    settings_class: type,
    function: Callable[[Any], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a script that is one verb: its words become settings, its user's errors one line.

    `prog` is command and verb, as help and errors print them. Returns the exit code.
    """
    from crosslingual.cli.settings import parse_settings

    def run() -> object:
        settings = parse_settings(settings_class, sys.argv[1:] if argv is None else argv, prog=prog)
        with own_flags(settings_class):
            return function(settings)

    return run_command(run)


def run_command(function: Callable[[], object]) -> int:
    """Runs a command and turns what a user can cause into one line on stderr and an exit code.
    Control and bidirectional characters of what it prints, such as those in a prompt or a file's
    name, are shown as escapes.

    `CROSSLINGUAL_TRACEBACK=1` in the environment prints the traceback as well.

    Returns:
        The `int` that the command returned, or 0; 2 after a `ValueError`, a missing file, a full
        disk, a refused permission; 130 after Ctrl-C; 141 where the reader of the output has gone
        (`| head`).
    """
    with (
        say_cut(),
        contextlib.redirect_stdout(_Printable(sys.stdout)),
        contextlib.redirect_stderr(_Printable(sys.stderr)),
    ):
        return _run_command(function)


class _Printable:
    """A stream that writes `printable` text, in lines and bars of progress."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text, keep="\n\r\t"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _run_command(function: Callable[[], object]) -> int:
    try:
        code = _exit_code(function)
        sys.stdout.flush()  # here, where a reader that has gone is an exit code
        return code
    except BrokenPipeError:
        # Python flushes at its end, which would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _exit_code(function: Callable[[], object]) -> int:
    try:
        code = function()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) or (
            isinstance(error, OSError) and not _is_user_fault(error)
        ):
            raise
        if os.environ.get("CROSSLINGUAL_TRACEBACK") == "1":
            traceback.print_exc()
        text = re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split()))
        if text in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)):
            text = f"{text}: the disk is full; make room and run the command again"
        print(f"error: {text}", file=sys.stderr)
        return 2


def _is_user_fault(error: OSError) -> bool:
    # transformers and huggingface_hub raise OSErrors without a number for an id that does not exist
    is_named = error.errno is None or errno.errorcode.get(error.errno) in _USER_ERRNOS
    return isinstance(error, (FileNotFoundError, ConnectionError, TimeoutError)) or is_named
