"""Text as files hold it: byte order marks, line ends, half characters, two spellings of a name."""

import codecs
import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crosslingual.data.records import Record, record_to_sample, sample_to_record
from crosslingual.data.shards import iter_shards, write_shards
from crosslingual.data.sources import SOURCES
from crosslingual.data.text import (
    dump_json,
    find_file,
    iter_json_lines,
    iter_lines,
    parse_json,
    read_json,
    read_text,
)
from crosslingual_worlds.testing.shards import open_loader, sample, samples, take_keys, write_tar

JPG = b"\xff\xd8\xff\xe0 picture"


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_marks_and_line_ends_of_windows_are_no_text(
    tmp_path: Path, mark: bytes, end: bytes
) -> None:
    """By every function, and so in every source: each names one of them."""
    path, packed = tmp_path / "a.jsonl", tmp_path / "a.gz"
    path.write_bytes(mark + b'{"a": "\xc3\xa9"}' + end)
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(iter_lines(path)) == list(iter_lines(packed)) == ['{"a": "é"}']
    assert list(iter_json_lines(path)) == [(1, {"a": "é"})]
    assert read_json(path) == parse_json(path.read_bytes()) == {"a": "é"}
    row = {"__key__": "0", "txt": mark + b"cat" + end, "json": path.read_bytes()}
    assert sample_to_record(row) == Record("0", None, {"en": ["cat"]}, True, extra={"a": "é"})
    for language in ("de", "en"):
        (tmp_path / f"o.de-en.{language}").write_bytes(mark + b"one" + end + b"two" + end)
    first, _ = SOURCES["moses"](str(tmp_path / "o.de-en"))
    assert first.captions == {"de": ["one"], "en": ["one"]}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "read",
    [
        lambda path: list(iter_lines(path)),
        read_json,
        read_text,
        lambda path: sample_to_record({"__key__": "0", "txt": path.read_bytes()}),
    ],
)
def test_other_encodings_are_refused(
    tmp_path: Path, read: Callable[[Path], Any], encoding: str
) -> None:
    (tmp_path / "a.json").write_bytes('"Köln"'.encode(encoding))
    with pytest.raises(ValueError, match=r"\A[^\n]*(a.json|sample '0')[^\n]*\Z"):
        read(tmp_path / "a.json")


def test_a_mark_and_a_line_end_inside_a_file_are_no_text_either(tmp_path: Path) -> None:
    """Of files that were joined, and of one that was saved twice."""
    path, mark = tmp_path / "a.txt", codecs.BOM_UTF8
    path.write_bytes(mark + mark + b"a\r\n" + mark + b"b\r\n")
    assert list(iter_lines(path)) == ["a", "b"]
    path.write_bytes(mark + mark + b"a\r\nb\r\n")
    assert read_text(path) == "a\nb\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' comes twice"),
        ("9" * 5000, "limit"),
        ("nul", "Expecting value"),
        ("", "Expecting value"),
        ('{"a": "\x01"}', "control character"),
    ],
)
def test_json_that_is_none_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    for read in (parse_json, lambda text: read_json(tmp_path / "a.json")):
        with pytest.raises(ValueError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
            read(text)


def test_numbers_that_json_does_not_have_are_missing_values_and_never_written() -> None:
    """pandas writes NaN where a cell is empty, and so do img2dataset's JSON files."""
    read = parse_json('{"a": [NaN, -Infinity, 1e999, 1.5], "b": Infinity}')
    assert read == {"a": [None, None, None, 1.5], "b": None}
    sample = {"__key__": "0", "txt": b"x", "json": b'{"similarity": 1e999, "width": 2}'}
    assert sample_to_record(sample).extra == {"similarity": None, "width": 2}
    for value in (float("nan"), {"a": [float("inf")]}, object()):
        with pytest.raises(ValueError, match="JSON"):
            dump_json(value)


def test_half_a_character_is_a_fault_of_its_sample(tmp_path: Path) -> None:
    """JSON escapes a character beyond U+FFFF as two; one alone can be neither written nor read."""
    whole, half = json.dumps({"file_name": "a.jpg", "text": "\U0001f600"}), r'{"text": "\ud83d"}'
    assert parse_json(whole)["text"] == "\U0001f600"
    (tmp_path / "metadata.jsonl").write_text(f"{whole}\n{half}")
    with pytest.raises(ValueError, match=r"jsonl line 2 .* half a character, '\\ud83d'"):
        list(SOURCES["folder"](str(tmp_path)))
    with pytest.raises(ValueError, match="record 'a': the text holds half a character"):
        Record("a", None, {"en": ["\ud83d"]}, True)
    bad = [("0003.png", sample("0003")[0][1]), ("0003.json", half.encode())]
    write_tar(tmp_path / "0.tar", [*samples(3), *bad])
    loader = open_loader(str(tmp_path), batch_size=2, max_corrupt=0.5)
    take_keys(loader, 2)
    assert [reason[:32] for reason in loader.faults.values()] == [
        "the text holds half a character,"
    ]


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_picture_is_found_by_either_spelling_of_its_name(
    tmp_path: Path, listed: str, stored: str
) -> None:
    """A Mac spells accents in names as two code points, lists of files as one."""
    inner = tmp_path / "é" / unicodedata.normalize(listed, "ü")  # each folder as it was written
    inner.mkdir(parents=True)
    (inner / unicodedata.normalize(stored, "ö.jpg")).write_bytes(JPG)
    path = tmp_path / "é" / "ü" / unicodedata.normalize(listed, "ö.jpg")
    assert find_file(tmp_path / "none" / "x.jpg") == tmp_path / "none" / "x.jpg"
    assert find_file(tmp_path / ("x" * 300)) == tmp_path / ("x" * 300)
    assert record_to_sample(Record("a", path, {"en": ["x"]}, True))["jpg"] == JPG
    assert write_shards([Record("a", path, {"en": ["x"]}, True)], tmp_path / "out")["num_images"]
    assert [record.image for record in iter_shards([str(tmp_path / "out/00000.tar")])] == [JPG]
