"""Crossmodal-3600 in a small file of its true layout."""

import json

import pytest

from crosslingual_benchmarks.datasets import DATASETS

CODES = (
    "ar bn cs da de el en es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt quz ro ru sv sw "
    "te th tr uk vi zh"
).split()


def write(tmp_path, *rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (tmp_path / "captions.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(tmp_path)


def row(key, **captions):
    told = {
        code: {"caption": texts, "caption/tokenized": texts} for code, texts in captions.items()
    }
    return {"image/key": key, "image/locale": "quz", **told}


def test_all_36_languages_are_read_under_their_codes(tmp_path):
    root = write(tmp_path, row("0a", **{code: [f"{code} 1", f"{code} 2"] for code in CODES}))
    data = DATASETS["xm3600"](root)
    assert list(data.galleries) == CODES
    assert data.galleries["fil"].texts == {0: ["fil 1", "fil 2"]}
    assert data.galleries["quz"].split == "all"


def test_the_withdrawn_code_of_hebrew_is_read_as_he(tmp_path):
    data = DATASETS["xm3600"](write(tmp_path, row("0a", iw=["כלב"])), languages=["he"])
    assert data.galleries["he"].texts == {0: ["כלב"]}


def test_pictures_lie_in_images_by_their_key(tmp_path):
    root = write(tmp_path, row("0a", en=["a"]), row("0b", en=["b"]))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0b.jpg").write_bytes(b"x")
    data = DATASETS["xm3600"](root)
    assert [(picture.name, picture.is_there) for picture in data.pictures] == [
        ("0a", False),
        ("0b", True),
    ]


def test_a_picture_without_a_caption_in_a_language_stays_in_its_gallery(tmp_path):
    root = write(tmp_path, row("0a", en=["a"], sw=["u\u2028v"]), row("0b", th=["c"], sw=[" "]))
    galleries = DATASETS["xm3600"](root).galleries
    assert galleries["th"].texts == {0: [], 1: ["c"]}
    assert galleries["en"].texts == {0: ["a"], 1: []}
    assert galleries["sw"].texts == {0: ["u\u2028v"], 1: []}


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="captions.zip"):
        DATASETS["xm3600"](str(tmp_path))
    with pytest.raises(ValueError, match="no captions in 'fr'; it has de, en"):
        DATASETS["xm3600"](write(tmp_path, row("0a", en=["a"], de=["b"])), languages=["fr"])
    with pytest.raises(ValueError, match="line 1 has no 'image/key'"):
        DATASETS["xm3600"](write(tmp_path, {"en": {"caption": ["a"]}}))
    with pytest.raises(ValueError, match="line 2: 'de' must be"):
        DATASETS["xm3600"](write(tmp_path, row("0a", en=["a"]), {"image/key": "0b", "de": ["x"]}))
    with pytest.raises(ValueError, match="'../0a.jpg' lies outside of"):
        DATASETS["xm3600"](write(tmp_path, row("../0a", en=["a"])))
