"""Our shards, and those of img2dataset and open_clip, as a retrieval benchmark."""

from collections.abc import Sequence
from pathlib import Path

from crosslingual.data.records import sample_to_record
from crosslingual.data.shards import check_sizes, read_index
from crosslingual.data.tars import INDEX, expand_shards
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    Picture,
    RetrievalSet,
    choose_languages,
)
from crosslingual_benchmarks.datasets.tarred import read_samples


def shards(
    root: str, *, languages: Sequence[str] = (), caption_language: str = "en"
) -> RetrievalSet:
    """Reads all samples of shards as one gallery, named after the folder and its index's hash, so
    that the same shards are the same dataset wherever they lie; after the root without an index.

    `root` may be a folder, a brace range or an address. `caption_language` is that of `KEY.txt`, in
    shards that name no language.

    Raises:
        FileNotFoundError: no shard there.
        ValueError: a shard or sample cannot be read, or is not what the index says.
    """
    index = read_index(root) if (Path(root) / INDEX).is_file() else None
    if index is not None:
        check_sizes(root, index)
    pictures: list[Picture] = []
    captions: list[dict[str, list[str]]] = []
    for picture, sample in read_samples(expand_shards(root)):
        captions.append(sample_to_record(sample, caption_language=caption_language).captions)
        pictures.append(picture)
    found = {language for told in captions for language in told}
    galleries = {
        language: Gallery(
            "whole", {place: told.get(language, []) for place, told in enumerate(captions)}
        )
        for language in choose_languages(languages, found, root)
    }
    sha256 = None if index is None else index["sha256"]
    name = root if sha256 is None else f"{Path(root).resolve().name} (shards {sha256[:8]})"
    return RetrievalSet(name, pictures, galleries, sha256=sha256)
