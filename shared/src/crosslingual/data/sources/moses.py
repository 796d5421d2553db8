"""Line-aligned translations in Moses' form, as OPUS, OPUS-100 and MT6 have them."""

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from crosslingual.data.languages import parse_language
from crosslingual.data.records import Record, make_key
from crosslingual.data.text import iter_lines

logger = logging.getLogger(__name__)

_ENDING = r"[a-z]{2,3}(?:_[A-Za-z]{2,4})?"
_PAIR = re.compile(rf"\.({_ENDING})-({_ENDING})(-(train|dev|test))?$")


def moses(input: str, *, languages: Sequence[str] | None = None) -> Iterator[Record]:
    """Reads `PREFIX.de` and `PREFIX.en`, plain or `.gz`, as records of text alone.

    Lines that are empty in some language translate nothing; they are left out, and their number is
    logged. Keys carry the line number.

    Args:
        input: prefix of the files, such as `opus/Tatoeba.de-en`.
        languages: endings of the files, two or more; read from the prefix if None.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: line counts differ, or the prefix names no languages.
    """
    paths = moses_files(input, languages)
    tags = [parse_language(path.name.removesuffix(".gz").rpartition(".")[2]) for path in paths]
    name = make_key(Path(input).name)
    num_empty = 0
    rows = itertools.zip_longest(*map(iter_lines, paths))
    for number, row in enumerate(rows, 1):
        if None in row:
            counts = (f"{path} {sum(1 for _ in iter_lines(path))}" for path in paths)
            raise ValueError(f"files are not line-aligned; lines: {', '.join(counts)}")
        texts = [text.strip() for text in row]
        if not all(texts):
            num_empty += 1
            continue
        captions = {language: [text] for language, text in zip(tags, texts, strict=True)}
        yield Record(f"{name}-{number:09d}", None, captions, parallel=True)
    if num_empty:
        logger.warning("%s: %d lines are empty in a language and left out", input, num_empty)


def moses_files(input: str, languages: Sequence[str] | None = None) -> list[Path]:
    """The files of a prefix, one for each language that its end names, or those given."""
    if languages is None:
        found = _PAIR.search(input)
        if found is None:
            raise ValueError(f"{input} names no pair like '.de-en'; give --languages de en")
        languages = found.groups()[:2]
    if len(set(languages)) < 2:
        raise ValueError("translations are between languages; give two or more --languages")
    return [_find(input, language) for language in languages]


def _find(prefix: str, language: str) -> Path:
    for ending in (language, f"{language}.gz"):
        path = Path(f"{prefix}.{ending}")
        if path.is_file():
            return path
    raise FileNotFoundError(f"no {prefix}.{language} or {prefix}.{language}.gz; check --input")
