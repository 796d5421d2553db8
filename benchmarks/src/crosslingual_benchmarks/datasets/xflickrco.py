"""xFlickr&CO (IGLUE, arXiv 2201.11732): a thousand pictures of Flickr30k and of COCO, captioned in
eight languages.
"""

from collections.abc import Sequence
from pathlib import Path

from crosslingual.data.text import iter_json_lines
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    RetrievalSet,
    choose_languages,
    find_picture,
    picture_folders,
)


def xflickrco(
    root: str,
    *,
    split: str = "test",
    languages: Sequence[str] = (),
    image_dir: Sequence[str] = (),
) -> RetrievalSet:
    """Reads `annotations/LANGUAGE/SPLIT.jsonl`; each language's file is a gallery of its own, as in
    IGLUE.

    Pictures are identified by `img_path`, since `id` is a text for Flickr30k and a number for COCO.

    `image_dir` names folders of Flickr30k's pictures and of COCO's val2014.

    Raises:
        FileNotFoundError: no annotations of the split.
        ValueError: a line is malformed (it is named), or a language is not there.
    """
    paths = {
        path.parent.name: path for path in sorted(Path(root).glob(f"annotations/*/{split}.jsonl"))
    }
    if not paths:
        raise FileNotFoundError(
            f"no {root}/annotations/LANGUAGE/{split}.jsonl; --root is IGLUE's datasets/xFlickrCO"
        )
    folders = picture_folders(root, image_dir)
    places: dict[str, int] = {}
    galleries = {}
    for language in choose_languages(languages, paths, f"xFlickr&CO in {root}"):
        texts: dict[int, list[str]] = {}
        for number, fields in iter_json_lines(paths[language]):
            name, sentences = fields.get("img_path"), fields.get("sentences")
            is_list = isinstance(sentences, list) and all(isinstance(s, str) for s in sentences)
            if not isinstance(name, str) or not is_list:
                raise ValueError(
                    f"{paths[language]} line {number} must hold img_path and a list of sentences"
                )
            told = texts.setdefault(places.setdefault(name, len(places)), [])
            told += [text.strip() for text in sentences if text.strip()]
        galleries[language] = Gallery(split, texts)
    return RetrievalSet("xflickrco", [find_picture(name, folders) for name in places], galleries)
