"""Multi30K's repository, in small and as it is."""

import gzip
import os
from pathlib import Path

import pytest

from crosslingual_benchmarks.datasets import DATASETS
from crosslingual_benchmarks.retrieval.trials import find_missing

MULTI30K = Path(
    os.environ.get("MULTI30K", Path(__file__).parents[3] / "shared" / "data" / "multi30k")
)
needs_multi30k = pytest.mark.skipif(not MULTI30K.is_dir(), reason="Multi30K is not here")


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def root(tmp_path):
    """Task 1 in two languages and task 2 with two captions, of the same two pictures."""
    data = tmp_path / "data"
    for name in ("task1/image_splits/test_2016_flickr", "task2/image_splits/test_2016_images"):
        write(data / f"{name}.txt", "10.jpg", "20.jpg")
    write(data / "task1/raw/test_2016_flickr.en.gz", "a man", "a dog")
    write(data / "task1/raw/test_2016_flickr.de.gz", "ein Mann", "ein\u2028Hund")
    write(data / "task2/raw/test_2016.1.de.gz", "eins", "zwei")
    write(data / "task2/raw/test_2016.2.de.gz", "uno", "due")
    return tmp_path


def read(root, **options):
    return DATASETS["multi30k"](str(root), **options)


def test_task_1_has_a_caption_a_picture_in_each_language(root):
    data = read(root)
    assert [picture.name for picture in data.pictures] == ["10.jpg", "20.jpg"]
    assert data.galleries["de"].texts == {0: ["ein Mann"], 1: ["ein\u2028Hund"]}
    assert data.galleries["en"].split == "task1/test_2016_flickr"
    assert list(read(root, languages=["de"]).galleries) == ["de"]


def test_task_2_has_independent_captions_and_says_so_in_its_split(root):
    gallery = read(root, task=2).galleries["de"]
    assert gallery.split == "task2/test_2016"
    assert gallery.texts == {0: ["eins", "uno"], 1: ["zwei", "due"]}


def test_pictures_are_looked_for_below_the_root_and_in_the_folders_given(root, tmp_path):
    (root / "images").mkdir()
    (root / "images" / "10.jpg").write_bytes(b"x")
    assert [picture.is_there for picture in read(root).pictures] == [True, False]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "20.jpg").write_bytes(b"y")
    both = read(root, image_dir=[str(root / "images"), str(elsewhere)])
    assert [picture.read() for picture in both.pictures] == [b"x", b"y"]


def test_a_language_or_split_that_is_not_there_is_an_error_that_says_what_is(root):
    with pytest.raises(ValueError, match="Multi30K's .*no sample has captions in 'cs'.*de, en"):
        read(root, languages=["cs"])
    with pytest.raises(FileNotFoundError, match="no Multi30K split 'test_2018'"):
        read(root, split="test_2018")


@needs_multi30k
@pytest.mark.parametrize(
    ("split", "languages", "num_pictures"),
    [
        ("test_2016_flickr", ["cs", "de", "en", "fr"], 1000),
        ("test_2017_flickr", ["de", "en", "fr"], 1000),
        ("test_2017_mscoco", ["de", "en", "fr"], 461),
        ("test_2018_flickr", ["cs", "de", "en", "fr"], 1071),
        ("val", ["cs", "de", "en", "fr"], 1014),
    ],
)
def test_the_true_splits_have_their_published_sizes_and_languages(split, languages, num_pictures):
    data = read(MULTI30K, split=split)
    assert sorted(data.galleries) == languages
    assert len(data.pictures) == num_pictures
    for gallery in data.galleries.values():
        assert list(gallery.texts) == list(range(num_pictures))
        assert all(len(texts) == 1 for texts in gallery.texts.values())


@needs_multi30k
def test_the_true_captions_stand_beside_their_pictures():
    data = read(MULTI30K)
    names = (MULTI30K / "data/task1/image_splits/test_2016_flickr.txt").read_text().split()
    lines = gzip.decompress((MULTI30K / "data/task1/raw/test_2016_flickr.fr.gz").read_bytes())
    assert [picture.name for picture in data.pictures] == names
    french = data.galleries["fr"].texts
    assert [french[place][0] for place in range(1000)] == [
        line.strip() for line in lines.decode().removesuffix("\n").split("\n")
    ]


@needs_multi30k
@pytest.mark.parametrize("allow_missing", [False, True])
def test_the_true_repository_without_pictures_is_refused_even_where_some_may_be_missing(
    allow_missing,
):
    with pytest.raises(FileNotFoundError, match="1000 of 1000 pictures .*--image_dir"):
        find_missing(read(MULTI30K), allow_missing)


@needs_multi30k
def test_pictures_of_the_true_coco_split_are_found_by_the_name_before_the_caption_number(tmp_path):
    name = "COCO_val2014_000000398076.jpg"
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / name).write_bytes(b"x")
    data = read(MULTI30K, split="test_2017_mscoco", image_dir=[str(tmp_path)])
    assert [picture.name for picture in data.pictures if picture.is_there] == [name]
