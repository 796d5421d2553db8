"""Benchmarks on COCO's pictures, in small files of their true layouts: COCO, XTD10, xFlickr&CO."""

import json

import pytest

from crosslingual_benchmarks.datasets import DATASETS
from crosslingual_benchmarks.datasets.retrieval_set import find_picture

TRAIN = "COCO_train2014_{:012d}.jpg"
VAL = "COCO_val2014_{:012d}.jpg"


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def captions_file(numbers, text, file_name=VAL):
    """Of COCO's form, the captions in another order than the pictures."""
    images = [{"id": number, "file_name": file_name.format(number)} for number in numbers]
    annotations = [
        {"image_id": number, "id": 10 * number + k, "caption": f"{text} {number}.{k}"}
        for number in reversed(numbers)
        for k in range(2)
    ]
    return {"images": images, "annotations": annotations}


@pytest.fixture
def coco_root(tmp_path):
    """Karpathy's test of pictures 1 and 2, STAIR on 1 to 3, COCO-CN's test of picture 7."""

    def entry(number, split):
        sentences = [{"raw": f"en {number}.{k}", "tokens": []} for k in range(2)]
        name = {"filename": VAL.format(number), "filepath": "val2014", "cocoid": number}
        return {**name, "split": split, "sentences": sentences}

    images = [entry(2, "test"), entry(3, "val"), entry(1, "test")]
    write_json(tmp_path / "dataset_coco.json", {"images": images})
    stair = captions_file([1, 2, 3], "ja")
    write_json(tmp_path / "STAIR-captions" / "stair_captions_v1.2_val.json", stair)
    folder = tmp_path / "coco-cn-version1805v1.1"
    folder.mkdir()
    (folder / "coco-cn_test.txt").write_text("COCO_train2014_000000000007\n")
    (folder / "imageid.human-written-caption.txt").write_text(
        "COCO_train2014_000000000007#0\t一只猫\nCOCO_train2014_000000000007#1\t两只狗\n"
        "COCO_val2014_000000000009#0\t别的\n",
        encoding="utf-8",
    )
    return tmp_path


def test_coco_has_english_and_japanese_on_karpathys_pictures_and_chinese_on_its_own(coco_root):
    data = DATASETS["coco"](str(coco_root))
    assert [p.name for p in data.pictures] == [VAL.format(2), VAL.format(1), TRAIN.format(7)]
    assert data.galleries["en"].texts == {0: ["en 2.0", "en 2.1"], 1: ["en 1.0", "en 1.1"]}
    assert data.galleries["ja"].texts == {0: ["ja 2.0", "ja 2.1"], 1: ["ja 1.0", "ja 1.1"]}
    assert data.galleries["zh"].texts == {2: ["一只猫", "两只狗"]}
    assert {language: gallery.split for language, gallery in data.galleries.items()} == {
        "en": "karpathy_test",
        "ja": "karpathy_test",
        "zh": "coco_cn_test",
    }


def test_coco_without_the_file_of_a_language_says_which_there_are(coco_root):
    (coco_root / "STAIR-captions" / "stair_captions_v1.2_val.json").unlink()
    with pytest.raises(ValueError, match="no captions in 'ja'; it has en, zh"):
        DATASETS["coco"](str(coco_root), languages=["en", "ja"])
    with pytest.raises(FileNotFoundError, match="dataset_coco.json, captions_test.json"):
        DATASETS["coco"](str(coco_root / "STAIR-captions"))


def test_cocos_own_split_is_read_from_its_annotations(tmp_path):
    document = captions_file([139, 285], "a", "{:012d}.jpg")
    write_json(tmp_path / "annotations" / "captions_val2017.json", document)
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "000000000285.jpg").write_bytes(b"x")
    data = DATASETS["coco"](str(tmp_path), split="val2017", image_dir=[str(tmp_path)])
    assert [picture.is_there for picture in data.pictures] == [False, True]
    assert data.galleries["en"].texts[1] == ["a 285.0", "a 285.1"]
    assert data.galleries["en"].split == "val2017"


def test_a_picture_that_stair_does_not_caption_stays_in_its_gallery_without_a_text(coco_root):
    stair = captions_file([1, 3], "ja")
    write_json(coco_root / "STAIR-captions" / "stair_captions_v1.2_val.json", stair)
    assert DATASETS["coco"](str(coco_root), languages=["ja"]).galleries["ja"].texts[0] == []


def test_a_line_of_coco_cn_of_another_form_is_named(coco_root):
    path = coco_root / "coco-cn-version1805v1.1" / "imageid.human-written-caption.txt"
    path.write_text("COCO_train2014_000000000007 text\n")
    with pytest.raises(ValueError, match="line 1 is not of the form"):
        DATASETS["coco"](str(coco_root), languages=["zh"])


@pytest.fixture
def xtd10_root(tmp_path):
    r"""Three pictures; Italian with "\r\n" and without an end, German from MIC, ja from STAIR."""
    for folder in ("XTD10", "MIC", "STAIR"):
        (tmp_path / folder).mkdir()
    names = [TRAIN.format(1), TRAIN.format(2), VAL.format(3)]
    (tmp_path / "XTD10/test_image_names.txt").write_text("\n".join(names) + "\n")
    italian = "uno\r\ndue\u2028e mezzo\r\ntre"
    (tmp_path / "XTD10/test_1kcaptions_it.txt").write_bytes(italian.encode())
    (tmp_path / "MIC/test_1kcaptions_de.txt").write_bytes(b"eins\nzwei\ndrei\n")
    (tmp_path / "STAIR/test_1kcaptions_jp.txt").write_bytes("一\n二\n三\n".encode())
    return tmp_path


def test_xtd10_has_languages_of_three_folders_by_bcp_47(xtd10_root):
    data = DATASETS["xtd10"](str(xtd10_root))
    assert sorted(data.galleries) == ["de", "it", "ja"]
    assert data.galleries["it"].texts == {0: ["uno"], 1: ["due\u2028e mezzo"], 2: ["tre"]}
    assert data.galleries["ja"].texts[2] == ["三"]


def test_xtd10_reports_the_pictures_that_are_not_of_train2014_apart(xtd10_root):
    data = DATASETS["xtd10"](str(xtd10_root))
    assert data.subsets == {"not_train2014": frozenset({2})}


def test_xtd10_finds_pictures_in_cocos_folders(xtd10_root):
    for number, name in ((1, TRAIN), (3, VAL)):
        folder = xtd10_root / "coco" / name.split("_")[1]
        folder.mkdir(parents=True)
        (folder / name.format(number)).write_bytes(b"x")
    data = DATASETS["xtd10"](str(xtd10_root), image_dir=[str(xtd10_root / "coco")])
    assert [picture.is_there for picture in data.pictures] == [True, False, True]


def test_xtd10_refuses_a_file_that_is_not_aligned_and_an_unknown_language(xtd10_root):
    with pytest.raises(ValueError, match="'jp' is no language code .*'ja'"):
        DATASETS["xtd10"](str(xtd10_root), languages=["jp"])
    path = xtd10_root / "MIC/test_1kcaptions_de.txt"
    path.write_bytes(b"eins\nzwei\n")
    with pytest.raises(ValueError, match="test_1kcaptions_de.txt has 2 lines for 3 pictures"):
        DATASETS["xtd10"](str(xtd10_root))
    path.write_bytes(b"eins\n\ndrei\n")
    with pytest.raises(ValueError, match="test_1kcaptions_de.txt line 2 is empty"):
        DATASETS["xtd10"](str(xtd10_root))


def test_xtd10_refuses_a_picture_that_comes_twice(xtd10_root):
    names = [TRAIN.format(1), TRAIN.format(2), TRAIN.format(1)]
    (xtd10_root / "XTD10/test_image_names.txt").write_text("\n".join(names))
    with pytest.raises(ValueError, match="COCO_train2014_000000000001.jpg comes twice"):
        DATASETS["xtd10"](str(xtd10_root))


@pytest.fixture
def xflickrco_root(tmp_path):
    """Two languages whose pictures are in another order, with ids of both types."""
    flickr = {"id": "1007129816", "img_path": "1007129816.jpg"}
    coco = {"id": 391895, "img_path": VAL.format(391895)}
    lines = {
        "de": [{"sentences": ["ein Hut"], **flickr}, {"sentences": ["ein\u2028Rad"], **coco}],
        "zh": [{"sentences": ["车"], **coco}, {"sentences": ["帽子"], **flickr}],
    }
    for language, rows in lines.items():
        path = tmp_path / "annotations" / language / "test.jsonl"
        path.parent.mkdir(parents=True)
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_xflickrco_joins_languages_by_the_picture_whatever_the_type_of_its_id(xflickrco_root):
    data = DATASETS["xflickrco"](str(xflickrco_root))
    assert [picture.name for picture in data.pictures] == ["1007129816.jpg", VAL.format(391895)]
    assert data.galleries["de"].texts == {0: ["ein Hut"], 1: ["ein\u2028Rad"]}
    assert data.galleries["zh"].texts == {0: ["帽子"], 1: ["车"]}


def test_xflickrco_takes_flickrs_and_cocos_folders_together(xflickrco_root):
    for folder, name in (("flickr", "1007129816.jpg"), ("val2014", VAL.format(391895))):
        (xflickrco_root / folder).mkdir()
        (xflickrco_root / folder / name).write_bytes(folder.encode())
    folders = [str(xflickrco_root / "flickr"), str(xflickrco_root)]
    data = DATASETS["xflickrco"](str(xflickrco_root), image_dir=folders)
    assert [picture.read() for picture in data.pictures] == [b"flickr", b"val2014"]


def test_xflickrco_names_the_line_that_is_malformed_and_the_languages_that_are_there(
    xflickrco_root,
):
    with pytest.raises(ValueError, match="no captions in 'tr'; it has de, zh"):
        DATASETS["xflickrco"](str(xflickrco_root), languages=["tr"])
    (xflickrco_root / "annotations/de/test.jsonl").write_text('{"sentences": "x", "id": 1}\n')
    with pytest.raises(ValueError, match="test.jsonl line 1 must hold img_path"):
        DATASETS["xflickrco"](str(xflickrco_root))
    with pytest.raises(FileNotFoundError, match="IGLUE"):
        DATASETS["xflickrco"](str(xflickrco_root), split="train_1")


def test_pictures_outside_of_their_folders_are_refused_and_folders_may_be_links(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    inside, other = tmp_path / "in", tmp_path / "other"
    (other / "train2014").mkdir(parents=True)
    inside.mkdir()
    (inside / "train2014").symlink_to(other / "train2014")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (other / "train2014/COCO_train2014_1.jpg").write_bytes(b"x")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(ValueError, match="lies outside of .* with --image_dir"):
            find_picture(name, [inside])
        assert find_picture(name, [inside, tmp_path]).is_there
    assert find_picture("COCO_train2014_1.jpg", [inside]).is_there
