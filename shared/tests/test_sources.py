"""Every source on files in the true layout, and on what is wrong with files in practice."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from crosslingual.cli.url_table import UrlTableSettings, url_table
from crosslingual.data.records import Record
from crosslingual.data.sources import SOURCES
from crosslingual_worlds.testing.shards import write_tar

JPG = b"\xff\xd8\xff\xe0 picture"


def read(source: str, *args: Any, **options: Any) -> list[Record]:
    return list(SOURCES[source](*map(str, args), **options))


def write_gz(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def test_folder(tmp_path: Path) -> None:
    lines = [
        {"file_name": "train/a.jpg", "text": "a cat"},
        {"file_name": "b.png", "captions": {"en": ["a dog"], "zh": "狗"}, "id": 7},
        {"file_name": "c.png", "captions": {"zh": "灯笼"}, "culture": "zh"},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(text)
    assert read("folder", tmp_path) == [
        Record("train/a", tmp_path / "train/a.jpg", {"en": ["a cat"]}, True),
        Record("b", tmp_path / "b.png", {"en": ["a dog"], "zh": ["狗"]}, True, None, {"id": 7}),
        Record("c", tmp_path / "c.png", {"zh": ["灯笼"]}, False, "zh"),
    ]


def test_folder_with_a_column_a_language(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "x", "text_de": "y"}')
    (record,) = read("folder", tmp_path, caption_keys={"text": "en", "text_de": "de"})
    assert record.captions == {"en": ["x"], "de": ["y"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "b.jpg", "text"', "line 2 is broken JSON"),
        ("[]", "line 2 is no JSON object"),
        ('{"text": "x"}', "line 2: it has no 'file_name'"),
        ('{"file_name": "b.jpg", "title": "x"}', "line 2: no caption; JSON keys found: title"),
    ],
)
def test_folder_names_the_file_and_the_line(line: str, message: str, tmp_path: Path) -> None:
    text = '{"file_name": "a.jpg", "text": "x"}\n' + line
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(ValueError, match=f"metadata.jsonl {message}"):
        read("folder", tmp_path)


def test_folder_without_metadata_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="one line per picture"):
        read("folder", tmp_path)


def test_folder_with_a_csv(tmp_path: Path) -> None:
    rows = ["file_name,text,text_de,parallel,id", 'a.jpg,"a cat, ""big""\nand old",,,1', ""]
    rows += ["b.jpg,a dog,ein Hund,false,"]
    (tmp_path / "metadata.csv").write_bytes("\r\n".join(["\ufeff" + rows[0], *rows[1:]]).encode())
    first, second = read("folder", tmp_path)
    assert first.captions == {"en": ['a cat, "big"\nand old']}
    assert (first.parallel, second.parallel) == (True, False)
    assert (first.extra, second.extra) == ({"id": "1"}, {"text_de": "ein Hund"})
    (record, _) = read("folder", tmp_path, caption_keys={"text": "en-GB", "text_de": "de"})
    assert record.captions == {"en-GB": first.captions["en"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metadata.csv needs a first line .* not nothing"),
        ("file_name;text\na.jpg;x", "parted by commas"),
        ("file_name,text,text\na.jpg,x,y", "different column names"),
        ("file_name,text\na.jpg,x,y", "line 2: it has 3 cells for 2 columns"),
        ('file_name,text\na.jpg,"x', "line 2 is broken CSV"),
        ("file_name,text\n,x", "line 2: it has no 'file_name'"),
        ("file_name,text\na.jpg,", "line 2: no caption"),
        ("file_name,text,culture\na.jpg,x,jp", "line 2: record 'a': 'jp' is .* mean 'ja'"),
        ("file_name,text,parallel\na.jpg,x,maybe", "line 2: 'parallel' must be true or false"),
        ("file_name,text\na.jpg," + "x" * 200_000, "line 2 is broken CSV: field larger"),
        ("\xff", "is no UTF-8 text"),
    ],
)
def test_a_broken_csv_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read("folder", tmp_path)


def write_all(folder: Path, **files: str) -> None:
    """Files by name, `__` being a slash and `_` a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_folder_of_pictures_with_texts_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_all(tmp_path, a_jpg="", a_txt="one\ntwo\n", README_txt="?", s__b_v1_png="", _x_jpg="")
    write_all(tmp_path, s__b_v1_json='{"captions": {"de": "x"}, "id": 1}')
    caption_lines = read("folder", tmp_path, caption_language="fr", caption_lines=True)
    assert caption_lines == [
        Record("a", tmp_path / "a.jpg", {"fr": ["one", "two"]}, False),
        Record("s/b_v1", tmp_path / "s/b.v1.png", {"de": ["x"]}, False, None, {"id": 1}),
    ]
    assert "1 texts have no picture" in caplog.text
    assert read("folder", tmp_path)[0].captions == {"en": ["one\ntwo"]}
    write_all(tmp_path, c_jpg="")
    with pytest.raises(ValueError, match="c.jpg: sample 'c': no caption"):
        read("folder", tmp_path)
    write_all(tmp_path, c_png="", c_txt="c")
    with pytest.raises(ValueError, match="two pictures of one name, .jpg and .png"):
        read("folder", tmp_path)


@pytest.mark.parametrize("table", ["metadata.jsonl", "a.txt"])
def test_a_split_is_chosen_and_never_mixed(table: str, tmp_path: Path) -> None:
    text = '{"file_name": "a.jpg", "text": "x"}' if table == "metadata.jsonl" else "x"
    for split in ("train", "test"):
        write_all(tmp_path / split, a_jpg="")
        (tmp_path / split / table).write_text(text)
        if split == "train":
            assert read("folder", tmp_path)[0].image == tmp_path / "train/a.jpg"
    with pytest.raises(ValueError, match="holds test, train: choose one with --split"):
        read("folder", tmp_path)
    assert read("folder", tmp_path, split="test")[0].image == tmp_path / "test/a.jpg"
    with pytest.raises(FileNotFoundError, match="no split 'dev' in .*: test, train"):
        read("folder", tmp_path, split="dev")


def lists_of(name: str, folder: Path) -> list[tuple[str, Any, dict[str, Any]]]:
    """Sources that list a picture of that name: source, input and options."""
    row = {"file_name": name, "text": "x"}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    write_all(folder / "csv", metadata_csv=f"file_name,text\n{name},x")
    image = {"id": 1, "file_name": name}
    captions = {"annotations": [{"image_id": 1, "caption": "x"}], "images": [image]}
    (folder / "coco.json").write_text(json.dumps(captions))
    image = {"filepath": "", "filename": name, "split": "train", "sentences": [{"raw": "x"}]}
    (folder / "karpathy.json").write_text(json.dumps({"images": [image]}))
    splits = folder / "data/task1"
    write_all(splits / "image_splits", val_txt=f"{name}\n")
    write_gz(splits / "raw/val.en.gz", "x")
    of_images = {"image_dir": folder}
    return [
        ("folder", folder, {}),
        ("folder", folder / "csv", {}),
        ("coco", folder / "coco.json", of_images),
        ("karpathy", folder / "karpathy.json", of_images),
        ("multi30k", folder, of_images | {"split": "val"}),
    ]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "link.png", "linked/secret.png"]
)
def test_no_list_of_pictures_leads_outside(name: str, tmp_path: Path) -> None:
    write_all(tmp_path, secret_png="secret")
    inside = tmp_path / "in"
    write_all(inside, csv__x_txt="")
    for folder in (inside, inside / "csv"):
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        (folder / "linked").symlink_to(tmp_path)
    for source, path, options in lists_of(name, inside):
        with pytest.raises(ValueError, match="lies outside of .* --allow_outside"):
            read(source, path, **options)
        (record,) = read(source, path, allow_outside=True, **options)
        assert str(record.image).endswith(name)
    write_all(tmp_path / "beside", link_txt="x")
    (tmp_path / "beside/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="'link.png' lies outside of"):
        read("folder", tmp_path / "beside")


def test_links_within_a_folder_and_to_it_are_followed(tmp_path: Path) -> None:
    write_all(tmp_path / "in", a_png="", b__c_png="")
    (tmp_path / "in/link.png").symlink_to("b/c.png")
    (tmp_path / "there").symlink_to(tmp_path / "in")
    for name in ("link.png", "b/../a.png", str(tmp_path / "in/a.png")):
        for source, path, options in lists_of(name, tmp_path / "there")[:1]:
            assert read(source, path, **options)


def test_webdataset_of_img2dataset(tmp_path: Path) -> None:
    fields = {"caption": "a cat", "url": "http://x/a.jpg", "key": "0", "width": 256}
    write_tar(
        tmp_path / "00000.tar",
        [
            ("000000000.jpg", JPG),
            ("000000000.json", json.dumps(fields).encode()),
            ("000000000.txt", b"a cat"),
            ("000000001.txt", b"a dog"),
        ],
    )
    (tmp_path / "00000_stats.json").write_text("{}")
    first, second = read("webdataset", tmp_path)
    assert first == Record("000000000", JPG, {"en": ["a cat"]}, True, None, fields)
    assert (second.image, second.captions) == (None, {"en": ["a dog"]})
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00000.tar").read_bytes())
    german = read("webdataset", tmp_path / "{00000..00001}.tar", caption_language="de")
    assert [list(record.captions) for record in german] == [["de"]] * 4


def test_json_keys_of_pea(tmp_path: Path) -> None:
    fields = {"caption_en": "a lantern", "caption_zh": "灯笼", "caption_ori": "红灯笼"}
    write_tar(tmp_path / "a.tar", [("0.jpg", JPG), ("0.json", json.dumps(fields).encode())])
    (record,) = read("json_keys", tmp_path)
    assert record.captions == {"en": ["a lantern"], "zh": ["灯笼"]}
    assert (record.parallel, record.extra) == (True, {"caption_ori": "红灯笼"})
    (record,) = read("json_keys", tmp_path, caption_keys={"caption_zh": "zh", "caption_ori": "zh"})
    assert (record.captions, record.parallel) == ({"zh": ["灯笼", "红灯笼"]}, False)
    with pytest.raises(ValueError, match=r"holds jpg, json:caption_en, json:caption_ori, json:cap"):
        read("json_keys", tmp_path, caption_keys={"caption_fr": "fr"})


def test_karpathy(tmp_path: Path) -> None:
    def entry(split: str, number: int) -> dict[str, Any]:
        sentences = [{"tokens": ["a"], "raw": f"A cat {number}.\n"}, {"raw": "Another."}]
        name = {"filename": f"COCO_{number}.jpg", "filepath": "val2014", "cocoid": number}
        return {**name, "split": split, "sentences": sentences}

    document = {"images": [entry("train", 1), entry("restval", 2), entry("test", 3)]}
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(document))
    (record,) = read("karpathy", path, image_dir="pics")
    captions = {"en": ["A cat 1.", "Another."]}
    extra = {"cocoid": 1, "split": "train"}
    assert record == Record("COCO_1", Path("pics/val2014/COCO_1.jpg"), captions, True, None, extra)
    both = read("karpathy", path, image_dir="pics", split="train+restval")
    assert [record.key for record in both] == ["COCO_1", "COCO_2"]
    with pytest.raises(ValueError, match="no pictures in split 'dev'; it has restval, test, train"):
        read("karpathy", path, image_dir="pics", split="dev")


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    images = [{"id": 9, "file_name": "COCO_9.jpg"}, {"id": 4, "file_name": "COCO_4.jpg"}]
    images.append({"id": 5, "file_name": "uncaptioned.jpg"})
    annotations = [
        {"image_id": 4, "id": 1, "caption": "猫"},
        {"image_id": 9, "id": 2, "caption": "犬 "},
        {"image_id": 4, "id": 3, "caption": "猫がいる"},
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert read("coco", path, image_dir="pics", caption_language="ja") == [
        Record("COCO_9", Path("pics/COCO_9.jpg"), {"ja": ["犬"]}, False, extra={"image_id": 9}),
        Record(
            "COCO_4",
            Path("pics/COCO_4.jpg"),
            {"ja": ["猫", "猫がいる"]},
            False,
            None,
            {"image_id": 4},
        ),
    ]
    path.write_text(json.dumps({"images": images[1:], "annotations": annotations}))
    with pytest.raises(ValueError, match="captions image 9, which it does not list"):
        read("coco", path, image_dir="pics")


@pytest.mark.parametrize("source", ["karpathy", "coco"])
def test_json_of_another_kind_is_refused(source: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text, message in [
        ('{"images": [', "broken JSON.*line 1"),
        ("{}", "is no"),
        ("[]", "is no"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=f"x.json.*{message}"):
            read(source, path, image_dir="pics")
    with pytest.raises(FileNotFoundError, match="gone.json"):
        read(source, tmp_path / "gone.json", image_dir="pics")


def make_multi30k(root: Path) -> None:
    task1, task2 = root / "data/task1", root / "data/task2"
    write_gz(task1 / "raw/val.en.gz", "A cat.", "A dog.")
    write_gz(task1 / "raw/val.de.gz", "Eine Katze.", "Ein Hund.\u2028")
    (task1 / "image_splits").mkdir()
    (task1 / "image_splits/val.txt").write_text("10.jpg\nCOCO_val2014_2.jpg#367\n")
    for number in range(1, 6):
        for language in ("en", "de"):
            write_gz(task2 / f"raw/test_2016.{number}.{language}.gz", f"{language} {number}")
    (task2 / "image_splits").mkdir()
    (task2 / "image_splits/test_2016_images.txt").write_text("10.jpg\n")


def test_multi30k(tmp_path: Path) -> None:
    make_multi30k(tmp_path)
    first, second = read("multi30k", tmp_path, split="val", image_dir="pics")
    assert first.captions == {"de": ["Eine Katze."], "en": ["A cat."]}
    assert first.parallel
    assert (second.key, second.image) == ("COCO_val2014_2_367", Path("pics/COCO_val2014_2.jpg"))
    (first, _) = read("multi30k", tmp_path, split="val", languages=["en"])
    assert (first.image, first.captions) == (None, {"en": ["A cat."]})
    (record,) = read("multi30k", tmp_path, split="test_2016", task=2, languages=["de"])
    assert record.captions == {"de": [f"de {number}" for number in range(1, 6)]}
    assert not record.parallel


def test_multi30k_faults(tmp_path: Path) -> None:
    make_multi30k(tmp_path)
    with pytest.raises(FileNotFoundError, match="no Multi30K split 'dev'.*there are: val"):
        read("multi30k", tmp_path, split="dev")
    with pytest.raises(
        ValueError,
        match="Multi30K.s val: no sample has captions in .cs.; .* de, en",
    ):
        read("multi30k", tmp_path, split="val", languages=["en", "cs"])
    raw = tmp_path / "data/task1/raw/val.de.gz"
    write_gz(raw, "Eine Katze.")
    with pytest.raises(ValueError, match="val.de.gz has 1 lines, .*val.txt has 2"):
        read("multi30k", tmp_path, split="val")
    write_gz(raw, "Eine Katze.", "")
    with pytest.raises(ValueError, match="val.de.gz line 2 is empty"):
        read("multi30k", tmp_path, split="val")
    raw.write_bytes(raw.read_bytes()[:-6])
    with pytest.raises(ValueError, match="val.de.gz is no whole UTF-8 text file"):
        read("multi30k", tmp_path, split="val")


def true_multi30k() -> Path:
    for parent in Path(__file__).resolve().parents:
        if (parent / "methods").is_dir() and (parent / "shared/src").is_dir():
            return parent.parent / "shared/data/multi30k"
    return Path("absent")


@pytest.mark.skipif(not true_multi30k().is_dir(), reason="the true files are not here")
@pytest.mark.parametrize(
    ("split", "languages", "count"),
    [
        ("train", ["de", "en"], 29_000),
        ("val", ["cs", "de", "en", "fr"], 1_014),
        ("test_2016_flickr", ["cs", "de", "en", "fr"], 1_000),
        ("test_2017_mscoco", ["de", "en", "fr"], 461),
        ("test_2018_flickr", ["cs", "de", "en", "fr"], 1_071),
    ],
)
def test_multi30k_as_it_is(split: str, languages: list[str], count: int) -> None:
    wanted = languages if split == "train" else None
    records = read("multi30k", true_multi30k(), split=split, languages=wanted)
    assert len({record.key for record in records}) == count
    assert all(list(record.captions) == languages for record in records)


@pytest.mark.parametrize("compressed", [False, True])
def test_moses(compressed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = {"de": "Hallo\r\nEins\u2028Zwei\n\nDrei\n", "en": "Hello\nOne\x85Two\nempty\nThree"}
    for language, text in texts.items():
        data = text.encode()
        path = tmp_path / f"Tatoeba.de-en.{language}{'.gz' if compressed else ''}"
        path.write_bytes(gzip.compress(data) if compressed else data)
    with caplog.at_level(logging.WARNING):
        records = read("moses", tmp_path / "Tatoeba.de-en")
    assert records[0] == Record(
        "Tatoeba_de-en-000000001", None, {"de": ["Hallo"], "en": ["Hello"]}, True
    )
    assert records[1].captions == {"de": ["Eins\u2028Zwei"], "en": ["One\x85Two"]}
    assert [record.key[-1] for record in records] == ["1", "2", "4"]
    assert "1 lines are empty in a language and left out" in caplog.text


def test_moses_faults(tmp_path: Path) -> None:
    (tmp_path / "opus.de-en-train.de").write_text("eins\nzwei\n")
    with pytest.raises(FileNotFoundError, match="no .*train.en or .*train.en.gz"):
        read("moses", tmp_path / "opus.de-en-train")
    (tmp_path / "opus.de-en-train.en").write_text("one\ntwo\nthree\n")
    with pytest.raises(ValueError, match=r"not line-aligned; lines: .*\.de 2, .*\.en 3"):
        read("moses", tmp_path / "opus.de-en-train")
    with pytest.raises(ValueError, match="give --languages"):
        read("moses", tmp_path / "opus")


@pytest.mark.parametrize(
    ("dataset", "line"),
    [("cc3m", 'a "big" cat\thttp://x/1.jpg'), ("cc12m", 'http://x/1.jpg\ta "big" cat')],
)
def test_conceptual_captions_become_a_table(
    dataset: Any, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.tsv", tmp_path / "new/out.tsv"
    source.write_text(f"{line}\n{line}\n")
    url_table(UrlTableSettings(dataset, str(source), str(target)))
    with pytest.raises(ValueError, match="is an input, which would be lost"):
        url_table(UrlTableSettings(dataset, str(source), str(source)))
    assert f"wrote {target}: 2 addresses" in capsys.readouterr().out
    assert target.read_text().splitlines()[:2] == [
        "url\tcaption",
        'http://x/1.jpg\t"a ""big"" cat"',
    ]
    other: Any = {"cc3m": "cc12m", "cc12m": "cc3m"}[dataset]
    with pytest.raises(ValueError, match=f"in.tsv line 1 is not .*, as in {other}"):
        url_table(UrlTableSettings(other, str(source), str(tmp_path / "new/other.tsv")))
    assert [path.name for path in target.parent.iterdir()] == ["out.tsv"]
    with pytest.raises(FileNotFoundError, match="gone.tsv"):
        url_table(UrlTableSettings(dataset, str(tmp_path / "gone.tsv"), str(target)))


def test_a_malformed_row_is_its_samples_fault(tmp_path: Path) -> None:
    """An empty caption, half a character, no JSON: by the command each is counted and named."""
    rows = [
        '{"file_name": "a.jpg", "text": " "}',
        '{"file_name": "b.jpg", "text": "\\ud83d"}',
    ]
    rows += ["{", '{"text": "x"}', '{"file_name": "a\\u0000.jpg", "text": "x"}']
    rows += ['{"file_name": "c.jpg", "text": "a cat"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    faults: dict[str, str] = {}
    assert [record.key for record in SOURCES["folder"](str(tmp_path), faults=faults)] == ["c"]
    lines = [f"{tmp_path / 'metadata.jsonl'} line {number}" for number in range(1, 6)]
    assert [*faults] == lines
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,x,y\nb.jpg,a dog")
    faults.clear()
    assert [record.key for record in SOURCES["folder"](str(tmp_path), faults=faults)] == ["b"]
    assert "3 cells for 2 columns" in faults[f"{tmp_path / 'metadata.csv'} line 2"]
    images = [{"file_name": f"{name}.jpg", "id": name} for name in "ab"]
    notes = [{"image_id": "a", "caption": ""}, {"image_id": "b", "caption": "a cat"}]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": notes}))
    faults.clear()
    read = SOURCES["coco"](str(tmp_path / "c.json"), image_dir=str(tmp_path), faults=faults)
    assert [record.key for record in read] == ["b"] and "a.jpg" in [*faults][0]
    notes += [{"image_id": "b"}, {"image_id": [1], "caption": "x"}, 5]
    images += [{"id": "c"}, {"id": "d", "file_name": "\0"}]
    notes += [{"image_id": name, "caption": "a cat"} for name in "cd"]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": notes}))
    faults.clear()
    read = SOURCES["coco"](str(tmp_path / "c.json"), image_dir=str(tmp_path), faults=faults)
    assert [record.key for record in read] == ["b"] and len(faults) == 6
    right = {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "a cat"}]}
    wrong = [{"filename": 5}, {"sentences": [{}]}, {"sentences": [5]}, {"sentences": None}]
    (tmp_path / "k.json").write_text(
        json.dumps({"images": [right, *({**right, **w} for w in wrong)]})
    )
    options = {"image_dir": str(tmp_path), "split": "val"}
    faults.clear()
    read = SOURCES["karpathy"](str(tmp_path / "k.json"), faults=faults, **options)
    assert [record.key for record in read] == ["b"] and len(faults) == 4
