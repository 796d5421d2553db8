"""Folders of pictures: with `metadata.jsonl` or `metadata.csv`, as diffusers' and datasets'
`imagefolder` has them, or with each picture's text beside it.
"""

import csv
import io
import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crosslingual.data.languages import LanguageCode
from crosslingual.data.records import (
    NOT_READ,
    PICTURES,
    Record,
    make_key,
    record_from_fields,
    sample_to_record,
)
from crosslingual.data.text import fault_of, find_inside, iter_json_lines, read_text

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test")

logger = logging.getLogger(__name__)


def folder(
    input: str,
    *,
    split: str | None = None,
    caption_keys: Mapping[str, str] | None = None,
    caption_language: LanguageCode = "en",
    caption_lines: bool = False,
    allow_outside: bool = False,
    faults: dict[str, str] | None = None,
) -> Iterator[Record]:
    """Reads rows `{"file_name": ..., "text": ...}` or `{"file_name": ..., "captions": {...}}`; or,
    where there is no table of such rows, `a.jpg` with `a.txt` or `a.json`, in subfolders too.

    A row may also hold `parallel`, `culture`, and anything else, which is kept as `extra`. With
    `faults`, samples that are malformed go there, reason by name.

    Args:
        input: folder of metadata.jsonl or metadata.csv, whose file names are relative to it; or of
            pictures with texts beside them.
        split: subfolder to read, such as train.
        caption_keys: JSON keys or columns and their languages (text_de=de), for captions in columns
            of their own.
        caption_language: language of captions that name none.
        caption_lines: whether each line of `a.txt` is a caption.
        allow_outside: reads files outside of the input, to which `..` or links lead.

    Raises:
        FileNotFoundError: there are no pictures with texts.
        ValueError: a row is malformed, or there are several splits; it is named.
    """
    root = _find_root(Path(input), split)
    options = {"key_map": caption_keys, "caption_language": caption_language}
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        yield from _texts_beside(
            root, allow_outside, faults, caption_lines=caption_lines, **options
        )
        return
    for number, fields in _rows(table, faults):
        where = f"{table} line {number}"
        file_name = fields.pop("file_name", None)
        if not isinstance(file_name, str) or not file_name or "\0" in file_name:
            with fault_of(where, faults):
                raise ValueError("it has no 'file_name'")
            continue
        text = None if "captions" in fields or caption_keys else fields.pop("text", None)
        with fault_of(where):
            image = find_inside(root, file_name, allow_outside)
        with fault_of(where, faults):
            yield record_from_fields(make_key(file_name), image, fields, text=text, **options)


def _find_root(root: Path, split: str | None) -> Path:
    """The folder itself, or the subfolder of a split."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; check --input")
    inner = sorted(path.name for path in root.glob("*/") if not path.name.startswith("."))
    if split is not None:
        if split not in inner:
            there = ", ".join(inner) or "none"
            raise FileNotFoundError(f"no split {split!r} in {root}; its subfolders: {there}")
        return root / split
    if any((root / name).is_file() for name in TABLES):
        return root
    found = [name for name in inner if any((root / name / table).is_file() for table in TABLES)]
    found = found or [name for name in inner if name.lower() in SPLITS]
    if len(found) > 1:
        raise ValueError(f"{root} holds {', '.join(found)}: choose one with --split")
    return root / found[0] if found else root


def _rows(table: Path, faults: dict[str, str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and fields of a table."""
    if table.suffix == ".jsonl":
        yield from iter_json_lines(table, faults)
        return
    if table.suffix == ".parquet":
        raise ValueError(
            f"{table} is not read; write it as metadata.jsonl, with pandas: "
            "read_parquet(...).to_json(..., orient='records', lines=True)"
        )
    rows = csv.reader(io.StringIO(read_text(table), newline=""), strict=True)
    try:
        columns = next(rows, [])
        if "file_name" not in columns or len(set(columns)) < len(columns):
            raise ValueError(
                f"{table} needs a first line of different column names parted by commas, "
                f"'file_name' among them, not {', '.join(columns) or 'nothing'}"
            )
        for cells in rows:
            if len(cells) > len(columns):
                with fault_of(f"{table} line {rows.line_num}", faults):
                    raise ValueError(f"it has {len(cells)} cells for {len(columns)} columns")
                continue
            fields: dict[str, Any] = {k: v for k, v in zip(columns, cells, strict=False) if v}
            if "parallel" in fields:
                words = {"true": True, "false": False}
                fields["parallel"] = words.get(fields["parallel"].lower(), fields["parallel"])
            if cells:
                yield rows.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{table} line {rows.line_num} is broken CSV: {error}") from error


def _texts_beside(
    root: Path, allow_outside: bool, faults: dict[str, str] | None, **options: Any
) -> Iterator[Record]:
    """A record for each picture, of its own text and JSON."""
    known = {f".{name}" for name in (*PICTURES, *NOT_READ)}
    paths = (path.relative_to(root) for path in root.rglob("*"))
    hidden = (".", "__MACOSX")
    seen = [path for path in paths if not any(part.startswith(hidden) for part in path.parts)]
    files = [p for p in seen if p.suffix.lower() in known | {".txt", ".json"}]
    num_texts, num_pictures = 0, 0
    for stem, group in itertools.groupby(
        sorted(files, key=lambda path: (str(path.with_suffix("")), path.suffix)),
        key=lambda path: path.with_suffix(""),
    ):
        names = list(group)
        if not any(name.suffix.lower() in known for name in names):
            num_texts += 1
            continue
        num_pictures += 1
        sample: dict[str, Any] = {"__key__": make_key(f"{stem}.jpg")}
        for name in names:
            path, extension = find_inside(root, str(name), allow_outside), name.suffix[1:].lower()
            if extension in sample:
                raise ValueError(f"{root / stem}.{extension} is there in two spellings: rename one")
            sample[extension] = path.read_bytes() if extension in ("txt", "json") else path
        with fault_of(str(root / names[0]), faults):
            yield sample_to_record(sample, **options)
    if not num_pictures:
        raise FileNotFoundError(
            f"no pictures with texts in {root}: give it a metadata.jsonl, one line per picture: "
            '{"file_name": "a.jpg", "captions": {"en": ["..."], "de": ["..."]}}, or a.txt beside '
            "a.jpg"
        )
    if num_texts:
        logger.warning("%s: %d texts have no picture and are left out", root, num_texts)
