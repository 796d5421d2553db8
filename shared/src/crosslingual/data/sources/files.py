"""Reading text and JSON so that an error names the file and the line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def iter_lines(path: Path) -> Iterator[str]:
    r"""Lines of a UTF-8 file, plain or `.gz`, without their ends.

    They end at "\n" alone: captions may hold U+2028 and its kin, at which `str.splitlines` splits.

    Raises:
        ValueError: it is not UTF-8, or a truncated `.gz`.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole UTF-8 text file: {error}") from error


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken; file and line are named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give --input the path of the JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is broken JSON: {error}") from error


def iter_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects of a JSON Lines file; blank lines are passed over.

    Raises:
        ValueError: a line is no JSON object; file and line are named.
    """
    for number, line in enumerate(iter_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is broken JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path} line {number} is no JSON object")
        yield number, fields
