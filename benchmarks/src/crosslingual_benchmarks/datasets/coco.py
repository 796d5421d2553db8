"""COCO in three languages: Karpathy's test set (en), STAIR (ja) and COCO-CN (zh)."""

from collections.abc import Sequence
from pathlib import Path

from crosslingual.data.sources.coco import coco as caption_records
from crosslingual.data.sources.coco import karpathy
from crosslingual.data.text import iter_lines
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    RetrievalSet,
    choose_languages,
    find_picture,
    picture_folders,
)

KARPATHY = "dataset_coco.json"
STAIR = "stair_captions_v1.2_val.json"
COCO_CN = "imageid.human-written-caption.txt"
BELOW = ("", "annotations", "STAIR-captions", "coco-cn-version1805v1.1", "coco-cn")


def coco(
    root: str,
    *,
    split: str = "test",
    languages: Sequence[str] = (),
    image_dir: Sequence[str] = (),
) -> RetrievalSet:
    """Reads the caption files of COCO that a folder holds, or its subfolders as archives unpack.

    - en: Karpathy's `dataset_coco.json`, whose test split is the 5K of the papers; where `split` is
      one of COCO's own, such as `val2017`, `annotations/captions_val2017.json`.
    - ja: `stair_captions_v1.2_val.json`, on the same pictures as en.
    - zh: `coco-cn_test.txt` and `imageid.human-written-caption.txt`, the 1K of COCO-CN: a gallery
      of its own, five times easier than the 5K, so that the protocol says its split and size.

    `split` is `test` or `val` of Karpathy and COCO-CN, or one of COCO's own. `image_dir` holds
    COCO's pictures, or its `val2014` and so on.

    Raises:
        FileNotFoundError: the folder has none of the files.
        ValueError: a language or the split is not there, or a file is of another kind.
    """
    own, zh_split, zh = (
        _find(root, name) for name in (f"captions_{split}.json", f"coco-cn_{split}.txt", COCO_CN)
    )
    english, stair = own or _find(root, KARPATHY), _find(root, STAIR)
    found = {"en": english, "ja": english and stair, "zh": zh_split and zh}
    found = {language: path for language, path in found.items() if path}
    if not found:
        raise FileNotFoundError(
            f"no captions of COCO's split {split!r} in {root}: {KARPATHY}, captions_{split}.json, "
            f"or coco-cn_{split}.txt with {COCO_CN}"
        )
    chosen = choose_languages(languages, found, f"COCO in {root}")
    names, galleries = [], {}
    if {"en", "ja"} & set(chosen):
        told = _stair(stair) if "ja" in chosen else {}
        names, galleries = _english_and_japanese(english, split, told, is_own=own is not None)
    if "zh" in chosen:
        places = {name: place for place, name in enumerate(names)}
        told = _coco_cn(zh)
        ids = [line.strip() for line in iter_lines(zh_split)]
        texts = {places.setdefault(f"{i}.jpg", len(places)): told.get(i, []) for i in ids if i}
        galleries["zh"] = Gallery(f"coco_cn_{split}", texts)
        names = list(places)
    folders = picture_folders(root, image_dir)
    folders += [folder / split for folder in folders] if own else []
    galleries = {language: galleries[language] for language in chosen}
    return RetrievalSet("coco", [find_picture(name, folders) for name in names], galleries)


def _english_and_japanese(
    path: Path, split: str, japanese: dict[int, list[str]], is_own: bool
) -> tuple[list[str], dict[str, Gallery]]:
    """Names of a split's pictures and both languages' galleries of them; `is_own` where the file is
    COCO's and not Karpathy's.
    """
    if is_own:
        records = list(caption_records(str(path), image_dir=".", allow_outside=True))
    else:
        records = list(karpathy(str(path), image_dir=".", allow_outside=True, split=split))
    id_name, name = ("image_id", split) if is_own else ("cocoid", f"karpathy_{split}")
    english = {place: record.captions["en"] for place, record in enumerate(records)}
    told = {place: japanese.get(record.extra[id_name], []) for place, record in enumerate(records)}
    galleries = {"en": Gallery(name, english), "ja": Gallery(name, told)}
    return [record.image.name for record in records], galleries


def _find(root: str, name: str) -> Path | None:
    paths = [Path(root) / below / name for below in BELOW]
    return next((path for path in paths if path.is_file()), None)


def _stair(path: Path) -> dict[int, list[str]]:
    """STAIR's captions by COCO's number of the picture."""
    records = caption_records(str(path), image_dir=".", allow_outside=True, caption_language="ja")
    return {record.extra["image_id"]: record.captions["ja"] for record in records}


def _coco_cn(path: Path) -> dict[str, list[str]]:
    r"""COCO-CN's captions by the picture's name without extension, of lines `NAME#0\ttext`."""
    told: dict[str, list[str]] = {}
    for number, line in enumerate(iter_lines(path), 1):
        head, tab, text = line.partition("\t")
        if not tab or "#" not in head:
            raise ValueError(f"{path} line {number} is not of the form NAME#0<tab>text")
        if text.strip():
            told.setdefault(head.split("#")[0], []).append(text.strip())
    return told
