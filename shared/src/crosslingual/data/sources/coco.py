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
        captions: dict[int | str, list[Any]] = defaultdict(list)
        for number, annotation in enumerate(document["annotations"]):
            with fault_of(f"{input}: annotation {number}", faults):
                captions[_value(annotation, "image_id", (int, str))].append(
                    _value(annotation, "caption", object)
                )
        images = document["images"]
        if unlisted := set(captions) - {image["id"] for image in images}:
            raise ValueError(f"{input} captions image {min(unlisted)}, which it does not list")
        for image in images:
            if image["id"] not in captions:
                continue
            name = None
            with fault_of(f"{input}: image {image['id']}", faults):
                name = _value(image, "file_name", str)
            if name is None:
                continue
            path = find_inside(Path(image_dir), name, allow_outside)
            with fault_of(f"{input}: {name}", faults):
                yield record_from_fields(
                    make_key(name),
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
        for number, image in enumerate(chosen):
            found = None
            with fault_of(f"{input}: picture {number} of the split", faults):
                sentences = _value(image, "sentences", list)
                found = (
                    _value(image, "filename", str),
                    [_value(s, "raw", object) for s in sentences],
                )
            if found is None:
                continue
            name, texts = found
            place = f"{image.get('filepath', '.')}/{name}"
            path = find_inside(Path(image_dir), place, allow_outside)
            with fault_of(f"{input}: {name}", faults):
                yield record_from_fields(
                    make_key(name),
                    path,
                    {name: image[name] for name in ("cocoid", "split") if name in image},
                    text=texts,
                    caption_language=caption_language,
                )


def _value(fields: Any, name: str, kinds: type | tuple[type, ...]) -> Any:
    value = fields.get(name) if isinstance(fields, dict) else None
    if value is None or not isinstance(value, kinds) or (kinds is str and "\0" in value):
        raise ValueError(f"its {name} is {value!r:.40}")
    return value


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
