"""Text, JSON and tables as files hold them: the one place in `data/` that decodes bytes.

Files come from many machines: with Windows' byte order mark and line ends, with JSON that escapes
half a character, with a Mac's spelling of accents in file names.
"""

import gzip
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    return data.decode("utf-8-sig")


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
    """A sample's JSON as values; a ValueError where it is broken, not UTF-8, or holds a lone
    surrogate.
    """
    text = decode_text(data) if isinstance(data, bytes) else data
    value = json.loads(text)
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
        return json.loads(decode_text(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is broken JSON: {error}") from error


def iter_lines(path: Path) -> Iterator[str]:
    r"""Lines of a UTF-8 file, plain or `.gz`, without their ends.

    They end at "\n" or "\r\n" alone: captions may hold U+2028 and other characters at which
    `str.splitlines` splits.

    Raises:
        ValueError: it is not UTF-8, or a truncated `.gz`.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole UTF-8 text file: {error}") from error


def iter_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects of a JSON Lines file; blank lines are passed over.

    Raises:
        ValueError: a line is no JSON object; file and line are named.
    """
    for number, line in enumerate(iter_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is broken JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path} line {number} is no JSON object")
        yield number, fields


def find_file(path: Path) -> Path:
    """The path of a file, or of the same name in the other Unicode form if only that exists: a Mac
    writes `é` into archives as two code points (NFD), a list of files mostly has one (NFC).
    """
    if not path.is_file():
        for form in ("NFC", "NFD"):
            spelled = unicodedata.normalize(form, str(path))
            for other in (path.with_name(Path(spelled).name), Path(spelled)):
                if other.is_file():
                    return other
    return path
