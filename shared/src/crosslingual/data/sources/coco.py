"""COCO's caption files (`captions_train2017.json`), and those of its form: STAIR for Japanese."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from crosslingual.data.records import Record, make_key, record_from_fields
from crosslingual.data.text import read_json


def coco(input: str, *, image_dir: str, caption_language: str = "en") -> Iterator[Record]:
    """Reads the pictures that have captions, in the order of `images`.

    Args:
        input: the JSON file.
        image_dir: folder of the pictures.
        caption_language: language of the captions: `ja` for STAIR.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, has no captions, or captions a picture that it
            does not list.
    """
    path = Path(input)
    try:
        document = read_json(path)
        captions: dict[int, list[str]] = defaultdict(list)
        for annotation in document["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
        images = document["images"]
        if unlisted := set(captions) - {image["id"] for image in images}:
            raise ValueError(f"{path} captions image {min(unlisted)}, which it does not list")
        for image in images:
            if image["id"] in captions:
                yield record_from_fields(
                    make_key(image["file_name"]),
                    Path(image_dir) / image["file_name"],
                    {"image_id": image["id"]},
                    text=captions[image["id"]],
                    caption_language=caption_language,
                )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no COCO caption file: {error!r}") from error
