"""Captions of COCO, Flickr30k and Flickr8k in JSON: COCO's form, also STAIR's, and Karpathy's."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosslingual.data.languages import LanguageCode
from crosslingual.data.records import Record, make_key, record_from_fields
from crosslingual.data.text import fault_of, find_inside, read_json


def coco(
    input: str,
    *,
    image_dir: str,
    caption_language: LanguageCode = "en",
    allow_outside: bool = False,
    faults: dict[str, str] | None = None,
) -> Iterator[Record]:
    """Reads the pictures that have captions, in the order of `images`. With `faults`, samples that
    are malformed go there, reason by name.

    Args:
        input: the JSON file.
        image_dir: folder of the pictures.
        caption_language: language of the captions: `ja` for STAIR.
        allow_outside: reads pictures outside of image_dir, to which `..` or links lead.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, or captions a picture that it does not list.
    """
    with _document(input, "COCO caption file") as document:
        captions: dict[int, list[str]] = defaultdict(list)
        for annotation in document["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
        images = document["images"]
        if unlisted := set(captions) - {image["id"] for image in images}:
            raise ValueError(f"{input} captions image {min(unlisted)}, which it does not list")
        for image in images:
            if image["id"] in captions:
                path = find_inside(Path(image_dir), image["file_name"], allow_outside)
                with fault_of(f"{input}: {image['file_name']}", faults):
                    yield record_from_fields(
                        make_key(image["file_name"]),
                        path,
                        {"image_id": image["id"]},
                        text=captions[image["id"]],
                        caption_language=caption_language,
                    )


def karpathy(
    input: str,
    *,
    image_dir: str,
    split: str = "train",
    caption_language: LanguageCode = "en",
    allow_outside: bool = False,
    faults: dict[str, str] | None = None,
) -> Iterator[Record]:
    """Reads the pictures of a split with their sentences (`dataset_coco.json`, ...). With `faults`,
    samples that are malformed go there, reason by name.

    Args:
        input: the JSON file.
        image_dir: folder of the pictures; they lie under `filepath` where the file gives one.
        split: `train`, `restval`, `val`, `test`, or several as `train+restval`, the training set
            that papers on COCO use.
        caption_language: language of the sentences.
        allow_outside: reads pictures outside of image_dir, to which `..` or links lead.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, or has no picture in the split.
    """
    with _document(input, "Karpathy JSON") as document:
        images = document["images"]
        chosen = [image for image in images if image["split"] in split.split("+")]
        if not chosen:
            found = ", ".join(sorted({image["split"] for image in images}))
            raise ValueError(f"{input} has no pictures in split {split!r}; it has {found}")
        for image in chosen:
            name = f"{image.get('filepath', '.')}/{image['filename']}"
            path = find_inside(Path(image_dir), name, allow_outside)
            texts = [sentence["raw"] for sentence in image["sentences"]]
            with fault_of(f"{input}: {image['filename']}", faults):
                yield record_from_fields(
                    make_key(image["filename"]),
                    path,
                    {name: image[name] for name in ("cocoid", "split") if name in image},
                    text=texts,
                    caption_language=caption_language,
                )


@contextlib.contextmanager
def _document(path: str, kind: str) -> Iterator[Any]:
    """A JSON file's content, whose wrong keys are an error that names the file."""
    try:
        yield read_json(Path(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no {kind}: {error!r}") from error
    except ValueError as error:
        if path in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
