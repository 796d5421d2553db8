"""Records and their form in a shard, ours and others'."""

import json
from pathlib import Path

import pytest

from crosslingual.data.records import (
    Record,
    make_key,
    names_found,
    parse_key_map,
    record_to_sample,
    sample_to_record,
    split_member,
)

PNG = b"\x89PNG\r\n\x1a\n picture"
JPG = b"\xff\xd8\xff\xe0 picture"
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 "


GIF, TIFF = b"GIF89a picture", b"II*\0 picture"


@pytest.mark.parametrize(
    ("image", "extension"),
    [(PNG, "png"), (JPG, "jpg"), (WEBP, "webp"), (GIF, "gif"), (TIFF, "tif")],
)
def test_a_record_survives_its_sample(image: bytes, extension: str) -> None:
    record = Record(
        "a/b", image, {"en": ["a cat"], "zh": ["猫", "一只猫"]}, True, None, {"scene": [1, None]}
    )
    sample = record_to_sample(record)
    assert set(sample) == {"__key__", extension, "json", "txt"}
    assert sample["txt"] == b"a cat"
    assert sample_to_record(sample) == record


def test_a_record_of_text_alone_has_no_picture_and_without_english_no_txt() -> None:
    record = Record("k", None, {"de": ["Katze"]}, False, "de")
    sample = record_to_sample(record)
    assert set(sample) == {"__key__", "json"}
    assert sample_to_record(sample) == record


def test_the_picture_of_a_path_is_named_by_its_content_not_its_ending(tmp_path: Path) -> None:
    (tmp_path / "a.jpeg").write_bytes(PNG)
    assert record_to_sample(Record("a", tmp_path / "a.jpeg", {"en": ["x"]}, True))["png"] == PNG


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.jpg is missing"):
        record_to_sample(Record("a", tmp_path / "gone.jpg", {"en": ["x"]}, True))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="no JPEG, PNG, WebP, GIF"):
        record_to_sample(Record("a", b"<html>404</html>", {"en": ["x"]}, True))


def test_of_two_pictures_and_of_one_that_is_not_read_none_is_chosen_unsaid() -> None:
    sample = {"__key__": "cat", "jpg": JPG, "png": PNG, "txt": b"x"}
    with pytest.raises(ValueError, match="sample 'cat': two pictures of one name, .jpg and .png"):
        sample_to_record(sample)
    with pytest.raises(ValueError, match="sample 'cat': heic pictures are not read: convert"):
        sample_to_record({"__key__": "cat", "heic": b"x", "txt": b"x"})
    sample = {"__key__": "cat", "heic": b"x", "jpg": JPG, "txt": b"x"}  # as phones hand out both
    assert sample_to_record(sample).image == JPG


def test_numbers_that_json_does_not_have_are_not_written() -> None:
    with pytest.raises(ValueError, match="record 'a': .*JSON"):
        record_to_sample(Record("a", None, {"en": ["x"]}, True, extra={"x": float("nan")}))


def test_a_lone_txt_is_english_or_what_is_said() -> None:
    sample = {"__key__": "a", "jpg": JPG, "txt": " 猫\n".encode()}
    assert sample_to_record(sample).captions == {"en": ["猫"]}
    assert sample_to_record(sample, caption_language="zh").captions == {"zh": ["猫"]}


def test_keys_of_other_formats_are_mapped_and_the_rest_kept() -> None:
    fields = {"caption_en": "a cat", "caption_zh": ["猫"], "caption_ori": "", "width": 640}
    sample = {"__key__": "a", "jpg": JPG, "txt": b"other", "json": json.dumps(fields).encode()}
    key_map = {"caption_en": "en", "caption_zh": "zh", "caption_ori": "zh"}
    record = sample_to_record(sample, key_map=key_map)
    assert record.captions == {"en": ["a cat"], "zh": ["猫"]}
    assert record.parallel
    assert record.extra == {"width": 640}


@pytest.mark.parametrize("name", ["caption", "text", "TEXT", "alt"])
def test_captions_that_are_only_in_the_json_are_found_under_the_usual_keys(name: str) -> None:
    fields = {"caption": None, "alt": " ", "width": 1} | {name: "a cat"}
    sample = {"__key__": "s", "jpg": JPG, "json": json.dumps(fields).encode()}
    record = sample_to_record(sample, caption_language="en-US")
    assert record.captions == {"en-US": ["a cat"]}
    assert record.parallel
    assert name not in record.extra
    assert record_to_sample(record)["txt"] == b"a cat"
    assert sample_to_record(sample | {"txt": b"own"}).captions == {"en": ["own"]}


def test_languages_have_one_form() -> None:
    captions = {"EN": ["a"], "en": ["b"], "zh_CN": ["c"]}
    record = Record("k", None, captions, True, "iw")
    assert record.captions == {"en": ["a", "b"], "zh-CN": ["c"]}
    assert record.culture == "he"


def test_a_mis_keyed_sample_names_the_keys_it_holds() -> None:
    sample = {"__key__": "s", "jpg": JPG, "json": b'{"caption_en": "x", "width": 1}'}
    with pytest.raises(ValueError, match="sample 's': no caption; JSON keys found: caption_en, wi"):
        sample_to_record(sample)
    with pytest.raises(ValueError, match="no caption under caption_fr"):
        sample_to_record(sample, key_map={"caption_fr": "fr"})
    assert names_found(sample) == ["jpg", "json:caption_en", "json:width"]
    assert names_found({"__key__": "s", "json": b"{"}) == ["json:(broken)"]


@pytest.mark.parametrize(
    ("captions", "culture", "parallel"),
    [
        ({"en": ["x"]}, None, True),
        ({"en": ["x"], "de": ["y"]}, None, True),
        ({"zh": ["x"]}, None, False),
        ({"en": ["x"], "zh": ["y"]}, "zh", False),
    ],
)
def test_english_speaks_for_a_sample_unless_its_file_says_otherwise(
    captions: dict[str, list[str]], culture: str | None, parallel: bool
) -> None:
    fields = {"captions": captions, "culture": culture}
    assert sample_to_record({"__key__": "a", "json": json.dumps(fields)}).parallel is parallel
    fields["parallel"] = not parallel
    assert sample_to_record({"__key__": "a", "json": json.dumps(fields)}).parallel is not parallel


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (b"{", "sample 'a': Expecting"),
        (b"[]", "no object"),
        (b'{"captions": ["x"]}', "'captions' must be an object"),
        (b'{"captions": {"en": [1]}}', "must be a text or a list"),
        (b'{"captions": {"english!": "x"}}', "no language code"),
        (b'{"captions": {"en": " "}}', "no caption"),
        (b'{"captions": {"en": "x"}, "parallel": "yes"}', "'parallel' must be"),
        (b'{"captions": {"en": "x"}, "culture": 3}', "no language code"),
        (b"\xff\xfe{", "sample 'a'"),
    ],
)
def test_malformed_json_is_refused_with_the_sample_named(fields: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_to_record({"__key__": "a", "json": fields})


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../b", "a.b", "a\nb", "a/"])
def test_a_key_that_points_outside_or_has_a_dot_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key|captions"):
        sample_to_record({"__key__": key, "txt": b"x"})


def test_what_would_not_survive_a_shard_is_refused() -> None:
    with pytest.raises(ValueError, match="empty caption"):
        Record("a", None, {"en": [""]}, True)
    with pytest.raises(ValueError, match="no captions"):
        Record("a", None, {}, True)
    with pytest.raises(ValueError, match="extra may not hold culture"):
        Record("a", None, {"en": ["x"]}, True, extra={"culture": "de"})


def test_names_split_at_the_first_dot_of_their_last_part() -> None:
    assert split_member("a.b/c.d.JPG") == ("a.b/c", "d.jpg")
    assert split_member("./000.json") == ("000", "json")
    assert split_member("a/.hidden") is None
    assert split_member("README") is None


def test_file_names_become_keys() -> None:
    assert make_key("train2014/COCO_1.jpg") == "train2014/COCO_1"
    assert make_key("./v1.0/a.b.PNG") == "v1_0/a_b"
    assert make_key("COCO_val2014_1.jpg#99") == "COCO_val2014_1_99"
    assert make_key("shot v1.0.jpg") == "shot v1_0"
    assert make_key(".hidden.jpg") == "_hidden"
    assert make_key("a.jpg.gif") == "a_jpg" and make_key(".jpg") == "_jpg"


def test_key_maps_are_read_from_flags() -> None:
    assert parse_key_map(["a=en", "b=zh-Hans"]) == {"a": "en", "b": "zh-Hans"}
    with pytest.raises(ValueError, match="NAME=LANGUAGE"):
        parse_key_map(["caption_zh"])
    with pytest.raises(ValueError, match="did you mean 'ja'"):
        parse_key_map(["caption=jp"])
