"""CLIP_benchmark's retrieval shards and our own, as galleries."""

import io
import tarfile

import pytest

from crosslingual.data.records import Record
from crosslingual.data.shards import read_index, write_shards
from crosslingual_benchmarks.datasets import DATASETS

JPG = b"\xff\xd8\xff\xe0 picture "


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def exported(tmp_path):
    """Two shards as CLIP_benchmark exports them; captions with what `splitlines` would split at."""
    (tmp_path / "dataset_type.txt").write_text("retrieval")
    texts = {0: "a cat\u2028on a mat\na\x0bfeline\x85", 1: "a dog", 2: "a bird\n"}
    for shard, numbers in enumerate(((0, 1), (2,))):
        members: dict[str, bytes] = {}
        for number in numbers:
            members[f"s{number:07d}.jpg"] = JPG + b"%d" % number
            members[f"s{number:07d}.txt"] = texts[number].encode()
        write_tar(tmp_path / "test" / f"{shard}.tar", members)
    (tmp_path / "test" / "nshards.txt").write_text("2\n")
    return tmp_path


def test_clip_benchmarks_captions_are_lines_that_end_at_a_newline_alone(exported):
    data = DATASETS["clip_benchmark_wds"](str(exported), caption_language="de")
    assert data.name == str(exported)
    assert data.galleries["de"].texts == {
        0: ["a cat\u2028on a mat", "a\x0bfeline"],
        1: ["a dog"],
        2: ["a bird"],
    }
    assert data.galleries["de"].split == "test"


def test_pictures_are_read_from_the_tar_when_their_turn_comes(exported):
    data = DATASETS["clip_benchmark_wds"](str(exported))
    assert [picture.name for picture in data.pictures] == ["s0000000", "s0000001", "s0000002"]
    assert [picture.read() for picture in reversed(data.pictures)] == [
        JPG + b"2",
        JPG + b"1",
        JPG + b"0",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dataset_type.txt", "classification", "says 'classification'"),
        ("test/nshards.txt", "3", "2.tar is missing, and nshards.txt says that there are 3"),
        ("test/nshards.txt", "two", "says 'two', not how many"),
        ("dataset_type.txt", None, "no .*dataset_type.txt"),
        ("test/nshards.txt", None, "no .*nshards.txt"),
    ],
)
def test_a_layout_that_is_not_clip_benchmarks_is_refused(exported, name, text, message):
    (exported / name).unlink()
    if text is not None:
        (exported / name).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DATASETS["clip_benchmark_wds"](str(exported))


def test_another_language_than_that_of_the_captions_is_refused(exported):
    with pytest.raises(ValueError, match="see --caption_language.* no captions in 'fr'; it has en"):
        DATASETS["clip_benchmark_wds"](str(exported), languages=["fr"])


def test_a_cut_off_shard_is_refused_and_not_a_smaller_gallery(exported):
    path = exported / "test" / "0.tar"
    path.write_bytes(path.read_bytes()[:2100])
    with pytest.raises(ValueError, match="0.tar: .*cut off"):
        DATASETS["clip_benchmark_wds"](str(exported))


def test_text_that_is_no_utf_8_is_named(exported):
    members = {"s0000000.jpg": JPG, "s0000000.txt": b"\xff\xfe"}
    write_tar(exported / "test" / "0.tar", members)
    with pytest.raises(ValueError, match="s0000000.txt is no UTF-8 text"):
        DATASETS["clip_benchmark_wds"](str(exported))


@pytest.fixture
def ours(tmp_path):
    records = [
        Record("a", JPG + b"a", {"en": ["a", "A"], "de": ["ä"]}, True),
        Record("b", JPG + b"b", {"en": ["b"]}, True),
        Record("c", None, {"en": ["c"], "de": ["ß"]}, True),
    ]
    write_shards(records, tmp_path / "shards", samples_per_shard=2)
    return tmp_path / "shards"


def test_our_shards_are_one_gallery_with_the_hash_of_their_index(ours):
    data = DATASETS["shards"](str(ours))
    assert data.galleries["en"].texts == {0: ["a", "A"], 1: ["b"], 2: ["c"]}
    assert data.galleries["de"].texts == {0: ["ä"], 1: [], 2: ["ß"]}
    assert data.sha256 == read_index(ours)["sha256"]
    assert data.name == f"shards (shards {data.sha256[:8]})"
    assert [picture.is_there for picture in data.pictures] == [True, True, False]
    assert data.pictures[1].read() == JPG + b"b"


def test_a_language_that_no_sample_has_is_refused_with_those_found(ours):
    with pytest.raises(ValueError, match="no captions in 'ja'; it has de, en"):
        DATASETS["shards"](str(ours), languages=["de", "ja"])


def test_shards_of_others_are_read_in_the_language_given(tmp_path):
    write_tar(tmp_path / "0.tar", {"a.jpg": JPG, "a.txt": b"x", "b.jpg": JPG, "b.txt": b"y"})
    data = DATASETS["shards"](str(tmp_path), caption_language="nl")
    assert data.name == str(tmp_path)
    assert data.galleries["nl"].texts == {0: ["x"], 1: ["y"]}
    assert data.sha256 is None


def test_shards_that_are_not_what_their_index_says_are_refused(ours):
    path = ours / "00000.tar"
    path.write_bytes(path.read_bytes() + bytes(1024))
    with pytest.raises(ValueError, match="its index says"):
        DATASETS["shards"](str(ours))
