"""Karpathy's JSON for COCO, Flickr30k and Flickr8k (`dataset_coco.json`, ...)."""

from collections.abc import Iterator
from pathlib import Path

from crosslingual.data.records import Record, make_key, record_from_fields
from crosslingual.data.text import read_json


def karpathy(
    input: str,
    *,
    image_dir: str,
    split: str = "train",
    caption_language: str = "en",
) -> Iterator[Record]:
    """Reads the pictures of a split with their sentences.

    Args:
        input: the JSON file.
        image_dir: folder of the pictures; they lie under `filepath` where the file gives one.
        split: `train`, `restval`, `val`, `test`, or several as `train+restval`, the training set
            that papers on COCO use.
        caption_language: language of the sentences.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, or has no picture in the split.
    """
    path = Path(input)
    try:
        images = read_json(path)["images"]
        wanted = split.split("+")
        chosen = [image for image in images if image["split"] in wanted]
        if not chosen:
            found = ", ".join(sorted({image["split"] for image in images}))
            raise ValueError(f"{path} has no pictures in split {split!r}; it has {found}")
        for image in chosen:
            folder = Path(image_dir) / image.get("filepath", "")
            texts = [sentence["raw"] for sentence in image["sentences"]]
            extra = {name: image[name] for name in ("cocoid", "split") if name in image}
            yield record_from_fields(
                make_key(image["filename"]),
                folder / image["filename"],
                extra,
                text=texts,
                caption_language=caption_language,
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no Karpathy JSON: {error!r} where images are read") from error
