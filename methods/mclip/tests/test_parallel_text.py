"""Parallel text as it lies on disk: Moses' files, shards, pairs of languages."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from crosslingual.training.processes import start_processes
from mclip.stage1.data import PairTokens
from mclip.stage1.parallel_text import expand_pairs, open_sources, sentence_pairs
from mclip.stage1.tokens import load_tokenizer, read_index, write_tokens


@pytest.fixture(scope="module")
def moses(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five lines, of which the second and the last translate nothing; one file is compressed."""
    folder = tmp_path_factory.mktemp("moses")
    lines = {"de": "ein Haus\n\nzwei\u2028Häuser\ndrei\n \n", "en": "a house\nx\ntwo\nthree\nfive"}
    (folder / "Tiny.de-en.en").write_text(lines["en"])
    with gzip.open(folder / "Tiny.de-en.de.gz", "wt", encoding="utf-8") as file:
        file.write(lines["de"])
    return str(folder / "Tiny.de-en")


def test_moses_lines_are_paired_by_line_and_empty_ones_counted(
    moses: str, encoder: str, tmp_path: Path
) -> None:
    (source,) = open_sources([moses])
    assert source.languages == ["de", "en"]
    assert list(sentence_pairs([source], ("en", "de"))) == [
        ("a house", "ein Haus"),
        ("two", "zwei\u2028Häuser"),
        ("three", "drei"),
    ]
    tokenizer, max_length = load_tokenizer(encoder, None, None)
    write_tokens([source], [("en", "de")], tmp_path, tokenizer, max_length, start_processes())
    counts = read_index(tmp_path)["counts"]
    assert (counts["num_records"], counts["num_empty"], counts["num_cut"]) == (5, 2, 0)
    pair = PairTokens(tmp_path, read_index(tmp_path), ("en", "de"))
    assert pair.keys(np.arange(3)) == [f"{moses}:1", f"{moses}:3", f"{moses}:4"]


def test_files_of_different_length_are_refused_with_both_counts(tmp_path: Path) -> None:
    (tmp_path / "x.de-en.de").write_text("eins\nzwei\n")
    (tmp_path / "x.de-en.en").write_text("one\ntwo\nthree\n")
    (source,) = open_sources([f"{tmp_path}/x.de-en"])
    with pytest.raises(ValueError, match=r"not line-aligned.*x\.de-en\.de 2, .*x\.de-en\.en 3"):
        list(source.records())


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither Moses files .*no.de-en.xx nor shards"):
        open_sources([f"{tmp_path}/no.de-en"])
    with pytest.raises(ValueError, match="no parallel text is named"):
        open_sources([])
    (tmp_path / "x.de-en.de").write_text("eins\n")
    with pytest.raises(FileNotFoundError, match="no .*x.de-en.en"):
        open_sources([f"{tmp_path}/x.de-en"])[0].languages  # noqa: B018


def test_languages_are_found_under_the_tags_that_the_texts_have(tmp_path: Path) -> None:
    (tmp_path / "x.en_US-zh_CN.en_US").write_text("a house\n")
    (tmp_path / "x.en_US-zh_CN.zh_CN").write_text("房子\n")
    (source,) = open_sources([f"{tmp_path}/x.en_US-zh_CN"])
    assert source.languages == ["en", "zh-CN"]
    assert list(sentence_pairs([source], ("en", "zh-CN"))) == [("a house", "房子")]
    assert source.digest != hashlib.sha256().hexdigest()
    for pair in ("en-zh", "EN-zh_cn", "en-US-zh-Hans"):
        assert expand_pairs([pair], [source.languages]) == [("en", "zh-CN")]
    with pytest.raises(ValueError, match="'zh-TW' is no language of this text"):
        expand_pairs(["en-zh-TW"], [source.languages])


def test_pairs_are_expanded_to_directions_that_a_source_has() -> None:
    groups = [["de", "en", "fr"], ["en", "zh-Hans"]]
    assert expand_pairs(["en-de", "zh-Hans-en"], groups) == [("en", "de"), ("zh-Hans", "en")]
    assert len(expand_pairs(["en-centric"], groups)) == 6
    assert len(expand_pairs(["all"], groups)) == 8
    with pytest.raises(ValueError, match="'ja' is no language of this text; there are de, en, fr"):
        expand_pairs(["en-ja"], groups)
    with pytest.raises(ValueError, match="no source translates de into zh-Hans; there are de-en"):
        expand_pairs(["de-zh-Hans"], groups)
    with pytest.raises(ValueError, match="names none of what there is"):
        expand_pairs(["en-centric"], [["de", "fr"]])
