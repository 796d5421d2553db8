"""Crossmodal-3600 (arXiv 2205.12522): 3,600 pictures with captions in 36 languages."""

from collections.abc import Sequence
from pathlib import Path

from crosslingual.data.text import iter_json_lines
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    Picture,
    RetrievalSet,
    choose_languages,
    find_picture,
    picture_folders,
)

CODES = {"iw": "he"}  # the withdrawn code of Hebrew


def xm3600(
    root: str, *, languages: Sequence[str] = (), image_dir: Sequence[str] = ()
) -> RetrievalSet:
    """Reads `captions.jsonl` with `images/KEY.jpg`.

    A picture has about two captions a language, written by speakers, not translated. CLIP_benchmark
    and the published numbers take the first. The file's codes are BCP-47's (`fil`, `quz`, `zh`);
    Hebrew's may be the withdrawn `iw`, and is `he` here.

    Raises:
        FileNotFoundError: `captions.jsonl` is not there.
        ValueError: a line is malformed (it is named), or a language is nowhere in the file.
    """
    path = Path(root) / "captions.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; unpack captions.zip of Crossmodal-3600 there")
    folders = picture_folders(root, image_dir)
    pictures: list[Picture] = []
    texts: dict[str, dict[int, list[str]]] = {}
    for number, fields in iter_json_lines(path):
        key = fields.get("image/key")
        if not isinstance(key, str):
            raise ValueError(f"{path} line {number} has no 'image/key'")
        pictures.append(Picture(key, find_picture(f"{key}.jpg", folders).source))
        for name, value in fields.items():
            if not name.startswith("image/"):
                captions = _captions(value, f"{path} line {number}: {name!r}")
                texts.setdefault(CODES.get(name, name), {})[len(pictures) - 1] = captions
    chosen = choose_languages(languages, texts, str(path))
    galleries = {
        language: Gallery(
            "all", {place: texts[language].get(place, []) for place in range(len(pictures))}
        )
        for language in chosen
    }
    return RetrievalSet("xm3600", pictures, galleries)


def _captions(value: object, where: str) -> list[str]:
    captions = value.get("caption") if isinstance(value, dict) else None
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError(f'{where} must be {{"caption": [texts]}}')
    return [text.strip() for text in captions if text.strip()]
