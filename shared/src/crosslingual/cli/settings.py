"""A command's settings: one flat dataclass, read from YAML and flags, written to run again.

    pea train --config configs/testbed.yaml --learning_rate 3e-4 --languages de fr --use_ema

Flags override the file. Values of both are read as text by the type of their field, so that a
language `no` in YAML is Norwegian and `1e-4` is a number.
"""

import dataclasses
import difflib
import errno
import os
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

Settings = TypeVar("Settings")

_NULLS = ("null", "~", "None", "")
_COMMA_LIST = re.compile(r"[\w./:-]+(?:,[\w./:-]+)+", re.ASCII)
_USER_ERRNOS = (
    "ENOSPC EDQUOT EROFS EACCES EPERM EEXIST EISDIR ENOTDIR ENOTEMPTY ENAMETOOLONG".split()
)


def parse_settings(
    cls: type[Settings], argv: Sequence[str], *, prog: str, description: str = ""
) -> Settings:
    """Reads a command's settings from `--config FILE.yaml` and flags, which override it.

    Booleans are `--use_ema true|false` or a bare `--use_ema`; lists are `--languages de fr` or
    `--languages de,fr` (a text with spaces in it is never split); `null` is None where the field
    may be None. `--help` prints every field and exits. The `--local_rank` of the deepspeed
    launcher is accepted and ignored: the environment says the same.

    Args:
        cls: a dataclass of `str`, `int`, `float`, `bool`, `Literal`, `list[str]` and optional
            fields, whose docstring describes each under `Attributes:`.
        argv: the words after the command's name.
        prog: the command's name, as help and errors print it.
        description: what the command does, for `--help`.

    Returns:
        The settings, of type `cls`.

    Raises:
        ValueError: for an unknown key (the nearest name is offered), a value of the wrong type, a
            missing setting.
        FileNotFoundError: for a config file that does not exist.
    """
    if "--help" in argv or "-h" in argv:
        parser = _parser(cls, prog, description)
        parser.add_argument(
            "--config", metavar="FILE.yaml", help="a YAML file of settings, which flags override"
        )
        print(_spell_lists(parser.format_help()))
        raise SystemExit(0)
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    for name, words in _split_flags(argv):
        if name == "config":
            for path in words:
                values |= _read_yaml(Path(path), hints)
        elif name != "local_rank":
            flags[name] = _flag_value(name, words, hints)
    values |= flags
    missing = [f.name for f in dataclasses.fields(cls) if _is_required(f) and f.name not in values]
    if missing:
        raise ValueError(
            f"{prog} needs --{missing[0]} (by flag or in the --config file); see {prog} --help"
        )
    return _typed(cls, values, hints, prog)


def write_settings(settings: Any, path: str | Path) -> None:
    """Writes settings as a YAML file that `--config` reads back to an equal object.

    Args:
        settings: an instance of a dataclass of settings.
        path: the file; its folder exists.
    """
    text = yaml.safe_dump(
        dataclasses.asdict(settings), sort_keys=False, allow_unicode=True, width=100
    )
    partial = Path(path).with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def run_command(function: Callable[[], int | None]) -> int:
    """Runs a command and turns what a user can cause into one line on stderr and an exit code.

    `CROSSLINGUAL_TRACEBACK=1` in the environment prints the traceback as well.

    Args:
        function: the command; its return value is the exit code, None being 0.

    Returns:
        The command's code; 2 after a `ValueError`, a missing file, a full disk, a refused
        permission; 130 after Ctrl-C; 141 where the reader of the output has gone (`| head`).
    """
    try:
        return function() or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes at its end, which would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and not _is_user_fault(error):
            raise
        if os.environ.get("CROSSLINGUAL_TRACEBACK") == "1":
            traceback.print_exc()
        text = re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split()))
        print(f"error: {text}", file=sys.stderr)
        return 2


def nearest_name(name: str, names: Sequence[str]) -> str:
    """Says `; did you mean 'x'?` of the name most like `name`, or nothing where none is like it."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _is_user_fault(error: OSError) -> bool:
    # transformers and huggingface_hub raise OSErrors without a number for an id that does not exist
    is_named = error.errno is None or errno.errorcode[error.errno] in _USER_ERRNOS
    return isinstance(error, FileNotFoundError) or is_named


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _split_flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Groups words by the flag before them: `--a 1 --b` is `[("a", ["1"]), ("b", [])]`."""
    groups: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            groups.append((name.replace("-", "_"), [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            raise ValueError(f"unexpected argument '{word}'; settings are given as --name value")
    return groups


def _read_yaml(path: Path, hints: dict[str, Any]) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no config file {path}; give an existing YAML file to --config")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold lines of 'name: value'")
    for name in values:
        _check_known(name, hints)
    return values


def _check_known(name: str, hints: dict[str, Any]) -> None:
    if name not in hints:
        raise ValueError(f"unknown setting '{name}'{nearest_name(name, list(hints))}")


def _flag_value(name: str, words: list[str], hints: dict[str, Any]) -> str | list[str]:
    _check_known(name, hints)
    kinds = _alternatives(hints[name])
    if any(typing.get_origin(kind) is list for kind in kinds):
        if len(words) == 1 and _COMMA_LIST.fullmatch(words[0]):
            return words[0].split(",")
        return words[0] if type(None) in kinds and words in (["null"], ["None"]) else words
    if not words and bool in kinds:
        return "true"
    if len(words) != 1:
        raise ValueError(
            f"setting '{name}' takes one value, not {len(words)}: {' '.join(words) or 'nothing'}"
        )
    return words[0]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _typed(
    cls: type[Settings], values: dict[str, Any], hints: dict[str, Any], prog: str
) -> Settings:
    """Turns texts into the types of their fields, by jsonargparse."""
    import jsonargparse

    for name, value in values.items():
        kinds = _alternatives(hints[name])
        if type(None) in kinds and value in _NULLS:
            values[name] = None
        elif bool in kinds and isinstance(value, str):
            values[name] = {"yes": "true", "no": "false"}.get(value.lower(), value.lower())
    try:
        return cls(**_parser(cls, prog, "").parse_object(values).as_dict())
    except jsonargparse.ArgumentError as error:
        found = re.match(r'Parser key "(\w+)"', str(error))
        if found is None:
            raise
        name = found[1]
        raise ValueError(
            f"setting '{name}' must be {_describe(hints[name])}, not '{values[name]}'"
        ) from error


def _describe(hint: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    words: list[str] = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            words += map(str, typing.get_args(kind))
        elif kind is type(None):
            words.append("null")
        else:
            words.append(names.get(kind, "a list of texts"))
    return " or ".join(words)


def _spell_lists(text: str) -> str:
    """Shows lists as this module reads them: without jsonargparse's brackets and its `--name+`."""
    text = re.sub(r", --\w+\+ (?:\[ITEM,\.\.\.\]|\w+)", "", text)
    return text.replace("[ITEM,...]", "ITEM ...").rstrip()


def _parser(cls: type, prog: str, description: str) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=prog, description=description or None, exit_on_error=False
    )
    parser.add_class_arguments(cls, as_group=False)
    return parser
