"""A command's settings: one flat dataclass, read from YAML and flags, written to run again.

    pea train --config configs/testbed.yaml --learning_rate 3e-4 --languages de fr --use_ema

Flags override the file. pydantic reads the words of both by the type of their field, so that a
language `no` in YAML is Norwegian and `1e-4` is a number.
"""

import argparse
import dataclasses
import difflib
import itertools
import os
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from crosslingual.data.text import decode_text
from crosslingual.files import write_text

Settings = TypeVar("Settings")

_Words = str | list[str]
"""What a setting is given as: a word, or any other number of them."""

_NULLS = ("null", "~", "None", "")
_COMMA_LIST = re.compile(r"[\w./:-]+(?:,[\w./:-]+)+", re.ASCII)
_NO_SETTINGS = ("local_rank", "verb")
_COUNTS = re.compile(
    r"(\w+_)?(batch_size|height|width|resolution|rank|heads|beams|max_length|checkpointing_steps)"
    "|(max_train|num_inference|gradient_accumulation)_steps|(validation|chunk)_rows|gallery"
    "|num_(prompts|images_per_prompt|seeds|processes|devices|pictures|queries|references|test|texts)"
)
"""Whole numbers with which nothing happens, or a division by zero, below 1."""
_SHARES = re.compile(r"(\w+_)?dropout|\w+_share|max_corrupt|ema_decay|label_smoothing")
"""Numbers from 0 to 1."""


def parse_settings(
    cls: type[Settings], argv: Sequence[str], *, prog: str, description: str = ""
) -> Settings:
    """Reads a command's settings from `--config FILE.yaml` and flags, which override it.

    Booleans are `--use_ema true|false` or a bare `--use_ema`; lists are `--languages de fr` or
    `--languages de,fr` (a text with spaces in it is never split); `null` is None where the field
    may be None. A path that starts with `./` or `../` is relative to the file that holds it.
    `--help` prints every field and exits. The `--local_rank` of the deepspeed launcher is ignored:
    the environment says the same.

    Args:
        cls: a dataclass of `str`, `int`, `float`, `bool`, `Literal`, list and optional fields; a
            text may be `Annotated` with a function that reads it, as `LanguageCode` is. The class's
            docstring, or that of a class it extends, describes each under `Attributes:`. A class
            attribute `FORMER_NAMES` maps names that flags and files may still use.
        argv: the words after the command's name.
        prog: the command's name, as help and errors print it.
        description: what the command does, for `--help`.

    Raises:
        ValueError: for an unknown key (the nearest name is offered), a value of the wrong type, a
            missing setting.
        FileNotFoundError: for a config file that does not exist.
    """
    if "--help" in argv or "-h" in argv:
        print(_help(cls, prog, description))
        raise SystemExit(0)
    hints = typing.get_type_hints(cls, include_extras=True)
    former = getattr(cls, "FORMER_NAMES", {})
    in_files: list[tuple[str, _Words, Path]] = []
    by_flag: list[tuple[str, _Words, Path]] = []
    for name, words in _split_flags(argv):
        if name != "config":
            by_flag.append((name, words[0] if len(words) == 1 else words, Path.cwd()))
            continue
        if not words:
            raise ValueError("--config takes the path of a YAML file")
        for path in map(Path, words):
            in_files += [(key, words, path.parent) for key, words in read_yaml(path).items()]
    values: dict[str, Any] = {}
    for name, words, folder in in_files + by_flag:
        if name not in _NO_SETTINGS:
            name = former.get(name, name)
            values[name] = _read(name, words, folder.absolute(), hints)
    for field in dataclasses.fields(cls):
        if field.name in values:
            _check_range(field, values[field.name])
        if field.name not in values and default_of(field) is dataclasses.MISSING:
            raise ValueError(
                f"{prog} needs --{field.name} (by flag or in the --config file); see {prog} --help"
            )
    return cls(**values)


def read_settings(cls: type[Settings], path: str | Path) -> Settings:
    """Reads what `write_settings` wrote."""
    return parse_settings(cls, ["--config", str(path)], prog=f"the run of {path}")


def write_settings(settings: Any, path: str | Path) -> None:
    """Writes settings as a YAML file that `--config` reads back to an equal object."""
    values = dataclasses.asdict(settings)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    write_text(Path(path), text)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a file of settings, every value as the words that stand there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or not lines of `name: value`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no config file {path}; give an existing YAML file to --config")
    try:
        values = yaml.load(decode_text(path.read_bytes()), Loader=yaml.BaseLoader) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold lines of 'name: value'")
    return values


def config_verb(argv: Sequence[str]) -> str | None:
    """The verb that the `--config` file of a command names as its own, None without one."""
    paths = [path for name, words in _split_flags(argv) if name == "config" for path in words]
    verb = read_yaml(Path(paths[-1])).get("verb") if paths else None
    return None if verb is None else str(verb)


def nearest_name(name: str, names: Sequence[str]) -> str:
    """Says `; did you mean 'x'?` of the name most like `name`, or nothing where none is like it."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


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


def _read(name: str, words: _Words, folder: Path, hints: Mapping[str, Any]) -> Any:
    """Turns the words of a flag, or of a line in a file, into the type of their field."""
    import pydantic

    if name not in hints:
        raise ValueError(f"unknown setting '{name}'{nearest_name(name, list(hints))}")
    kinds = _alternatives(hints[name])
    given = [words] if isinstance(words, str) else words
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise ValueError(f"setting '{name}' must be {_describe(hints[name])}, not '{words!s:.60}'")
    if type(None) in kinds and words in _NULLS:
        return None
    if any(typing.get_origin(kind) is list for kind in kinds):
        if isinstance(words, str):
            words = words.split(",") if _COMMA_LIST.fullmatch(words) else [words]
        words = [_placed(word, folder) for word in words]
    elif not words and bool in kinds:
        return True
    elif isinstance(words, list):
        found = " ".join(map(str, words)) or "nothing"
        raise ValueError(f"setting '{name}' takes one value, not {len(words)}: {found}")
    else:
        words = _placed(words, folder)
        literals = [kind for kind in kinds if typing.get_origin(kind) is Literal]
        for value in itertools.chain.from_iterable(map(typing.get_args, literals)):
            if words == str(value):
                return value  # pydantic takes no text for a number among literals
    if parse := _parser(hints[name]):
        try:
            words = [*map(parse, words)] if isinstance(words, list) else parse(words)
        except ValueError as error:
            raise ValueError(f"setting '{name}': {error}") from error
        if isinstance(words, list) and (twice := [w for w, n in Counter(words).items() if n > 1]):
            raise ValueError(f"setting '{name}' holds {twice[0]} twice")
    adapter = pydantic.TypeAdapter(hints[name])
    try:
        is_list = isinstance(words, list)
        return adapter.validate_python(words) if is_list else adapter.validate_strings(words)
    except pydantic.ValidationError:
        kind = _describe(hints[name])
        raise ValueError(f"setting '{name}' must be {kind}, not '{words}'") from None


def _check_range(field: dataclasses.Field, value: Any) -> None:
    """Refuses a number that no such setting can have; 0 passes where it is the default."""
    name, is_whole = field.name, type(value) is int
    if is_whole and value < 1 and _COUNTS.fullmatch(name) and (value, field.default) != (0, 0):
        raise ValueError(f"setting '{name}' must be at least 1, not {value}")
    if is_whole and value < 0 and not name.endswith("seed"):
        raise ValueError(f"setting '{name}' must be at least 0, not {value}")
    if isinstance(value, float) and _SHARES.fullmatch(name) and not 0 <= value <= 1:
        raise ValueError(f"setting '{name}' must be from 0 to 1, not {value}")


def _placed(word: str, folder: Path) -> str:
    """A path that is relative to the folder, made absolute; any other word as it is."""
    return os.path.normpath(folder / word) if word.startswith(("./", "../")) else word


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a setting may have; a text is `str` also where a function reads it."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if is_union else (hint,)
    return tuple(getattr(kind, "__origin__", kind) if _is_read(kind) else kind for kind in kinds)


def _is_read(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Annotated


def _parser(hint: Any) -> Callable[[str], Any] | None:
    """The function that reads a text, as `Annotated[str, function]` says, also in lists."""
    if _is_read(hint):
        return hint.__metadata__[0]
    return next(filter(None, map(_parser, typing.get_args(hint))), None)


def _describe(hint: Any) -> str:
    """What a setting may be, in words."""
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    words: list[str] = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            words += map(str, typing.get_args(kind))
        elif typing.get_origin(kind) is list:
            [item] = typing.get_args(kind)
            words.append(f"a list of {'whole numbers' if item is int else 'texts'}")
        else:
            words.append("null" if kind is type(None) else names[kind])
    return " or ".join(words)


def default_of(field: dataclasses.Field) -> Any:
    """A field's default; `dataclasses.MISSING` where the setting is required."""
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _help(cls: type, prog: str, description: str) -> str:
    import docstring_parser

    parser = argparse.ArgumentParser(
        prog=prog, description=description, usage="%(prog)s [--name value ...]"
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="YAML file of settings, which flags override"
    )
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        parsed = docstring_parser.parse(base.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
        docs |= {parameter.arg_name: parameter.description or "" for parameter in parsed.params}
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        kind = f"{_describe(hints[field.name])}; {_default(field)}"
        words = f"{docs.get(field.name, '')} ({kind})".replace("%", "%%")
        parser.add_argument(f"--{field.name}", metavar="", help=words)
    return parser.format_help().rstrip()


def _default(field: dataclasses.Field) -> str:
    value = default_of(field)
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, list):
        return f"default: {' '.join(map(str, value)) or 'none'}"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"default: {'null' if value is None else 'none' if value == '' else value}"
