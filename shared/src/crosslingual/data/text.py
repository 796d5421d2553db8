"""Text, JSON and tables as files hold them: the one place in `data/` that decodes bytes.

Files come from many machines: with Windows' byte order mark and line ends, with JSON that escapes
half a character, with a Mac's spelling of accents in file names. What is not UTF-8 or not JSON is a
ValueError of one line, however it is broken.
"""

import contextlib
import gzip
import json
import math
import os.path
import re
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_DEPTH = 64  # of JSON; Python's own limit, about 1,000, would be met anywhere later

_BYTE_ORDER_MARK = "\ufeff"
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# The first branch is kept: joiners inside Persian, Indic words and emoji, and the flags of regions.
_HIDDEN = re.compile(
    r"((?<=[^\x00-\x7f\u2000-\u206f])[\u200c\u200d](?=[^\x00-\x7f\u2000-\u206f])"
    r"|(?<=\U0001f3f4)[\U000e0030-\U000e007a]{1,6}\U000e007f)"
    r"|[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    r"\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def printable(text: object, keep: str = "") -> str:
    """Text as a terminal, a page or a file name may show it: control characters, and those that
    are invisible or change the order of the text around them, become escapes such as `\\u202e`.
    Letters of every script stay, right-to-left ones too, and so do the characters to `keep`.
    """
    return _HIDDEN.sub(
        lambda m: m[0] if m[1] or m[0] in keep else m[0].encode("unicode_escape").decode(),
        str(text),
    )


def decode_text(data: bytes) -> str:
    """UTF-8 bytes as text, without the byte order mark; a ValueError where they are not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in data[:2]:
        raise ValueError("it is UTF-16 or binary, not UTF-8: save it as UTF-8")
    return data.decode("utf-8").lstrip(_BYTE_ORDER_MARK)


def read_text(path: Path) -> str:
    """A UTF-8 file as text, with "\\n" at the ends of lines.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not UTF-8; it is named.
    """
    try:
        return decode_text(path.read_bytes()).replace("\r\n", "\n")
    except ValueError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error}") from error


def check_characters(text: str) -> None:
    """Refuses lone surrogates: JSON can escape one, but no UTF-8 file or tokenizer can take it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds half a character, {text[error.start]!a} (a lone surrogate): write it "
            "again as UTF-8"
        ) from error


def parse_json(data: bytes | str) -> Any:
    """JSON as values. NaN, infinities and numbers beyond a float, which JSON does not have and many
    programs write, are None.

    Raises:
        ValueError: it is broken, not UTF-8, deeper than `MAX_DEPTH`, names a key twice, or holds a
            lone surrogate.
    """
    value, text = _load(data)
    if _ESCAPED_SURROGATE.search(text):  # mostly one half of a pair, which json has joined
        check_characters(json.dumps(value, ensure_ascii=False))
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file. Its texts are checked sample by sample, when records are made of them.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken; file and line are named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give --input the path of the JSON file")
    try:
        return _load(path.read_bytes())[0]
    except ValueError as error:
        raise ValueError(f"{path} is broken JSON: {error}") from error


def dump_json(value: Any, **options: Any) -> str:
    """JSON that every program reads; a ValueError for NaN, infinities and what is no JSON value."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no JSON value: {error}") from error


def iter_lines(path: Path) -> Iterator[str]:
    r"""Lines of a UTF-8 file, plain or `.gz`, without their ends.

    They end at "\n" or "\r\n" alone: captions may hold U+2028 and other characters at which
    `str.splitlines` splits.

    Raises:
        ValueError: it is not UTF-8, or a truncated `.gz`.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file):
                # a mark also begins a later line where files were joined
                text = line.decode("utf-8") if number else decode_text(line)
                yield text.lstrip(_BYTE_ORDER_MARK).rstrip("\r\n")
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole UTF-8 text file: {error}") from error


@contextlib.contextmanager
def fault_of(name: str, faults: dict[str, str] | None = None) -> Iterator[None]:
    """What is wrong with a sample, a ValueError in the block, goes into `faults` by the sample's
    name; where there are none to go to, it is raised with the name.
    """
    try:
        yield
    except ValueError as error:
        if faults is None:
            raise ValueError(f"{name}: {error}") from error
        faults[printable(name)] = str(error)


def iter_json_lines(
    path: Path, faults: dict[str, str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects of a JSON Lines file; blank lines are passed over.

    Raises:
        ValueError: without `faults`, a line is no JSON object; file and line are named.
    """
    for number, line in enumerate(iter_lines(path), 1):
        if not line.strip():
            continue
        fields, reason = None, "is no JSON object"
        try:
            fields = parse_json(line)
        except ValueError as error:
            reason = f"is broken JSON: {error}"
        if isinstance(fields, dict):
            yield number, fields
        elif faults is None:
            raise ValueError(f"{path} line {number} {reason}")
        else:
            faults[f"{path} line {number}"] = reason


def find_file(path: Path) -> Path:
    """The path of a file, or of the same one with folders or names in the other Unicode form if
    only that exists: a Mac writes `é` into archives as two code points (NFD), a list of files
    mostly has one (NFC).
    """
    if os.path.isfile(path):  # unlike Path.is_file, it says no to names that no file can have
        return path
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        spelled = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        there = [found / name for name in spelled if os.path.exists(found / name)]
        if not there:
            return path
        found = there[0]
    return found if found.is_file() else path


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path stays in a folder when its `..` and links are followed."""
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def find_inside(
    folder: Path,
    name: str,
    allow_outside: bool = False,
    remedy: str = "read such files with --allow_outside",
) -> Path:
    """`find_file` of a name in a folder that a list or a link gives.

    Raises:
        ValueError: it is absolute, or `..` or a link leads out of the folder; `allow_outside` lets
            it pass.
    """
    path = find_file(folder / name)
    if not allow_outside and not is_inside(path, folder):
        raise ValueError(f"{name!r} lies outside of {folder}: copy it there, or {remedy}")
    return path


def _load(data: bytes | str) -> tuple[Any, str]:
    """The values of JSON, and its text."""
    text = decode_text(data) if isinstance(data, bytes) else data
    try:
        value = json.loads(
            text,
            parse_float=_finite,
            parse_constant=lambda _: None,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value, MAX_DEPTH)
    return value, text


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!a:.60} comes twice in an object")
    return value


def _check_depth(value: Any, left: int) -> None:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if left < 0:
        raise ValueError("it is nested too deeply")
    for part in parts:
        if isinstance(part, (dict, list)):
            _check_depth(part, left - 1)
