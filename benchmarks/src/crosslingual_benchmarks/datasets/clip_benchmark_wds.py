"""CLIP_benchmark's retrieval sets, which `clip_benchmark_export_wds` writes and its hub holds."""

from collections.abc import Sequence
from pathlib import Path

from crosslingual.data.text import decode_text, read_text
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    Picture,
    RetrievalSet,
    choose_languages,
)
from crosslingual_benchmarks.datasets.tarred import read_samples


def clip_benchmark_wds(
    root: str,
    *,
    split: str = "test",
    languages: Sequence[str] = (),
    caption_language: str = "en",
) -> RetrievalSet:
    r"""Reads `SPLIT/0.tar` and so on, as many as `SPLIT/nshards.txt` says, with a picture and its
    captions, one a line, a sample.

    Lines end at "\n" alone: `str.splitlines` would also split at U+2028, \x0b and \x85, and make
    two captions of one.

    The files do not say `caption_language`; `languages` may name no other.

    Raises:
        FileNotFoundError: a file of the layout is not there.
        ValueError: the data are for classification, a shard is damaged, or a sample has no text.
    """
    kind = _read_word(Path(root) / "dataset_type.txt")
    if kind != "retrieval":
        raise ValueError(f"{root}/dataset_type.txt says {kind!r}: these are no retrieval data")
    choose_languages(languages, [caption_language], f"{root} (see --caption_language)")
    folder = Path(root) / split
    word = _read_word(folder / "nshards.txt")
    if not word.isdecimal() or len(word) > 9 or int(word) == 0:
        raise ValueError(f"{folder}/nshards.txt says {word!r}, not how many shards there are")
    paths: list[Path] = []
    for number in range(int(word)):
        paths.append(folder / f"{number}.tar")
        if not paths[-1].is_file():
            raise FileNotFoundError(
                f"{paths[-1]} is missing, and nshards.txt says that there are {word}: fetch it"
            )
    pictures: list[Picture] = []
    texts: dict[int, list[str]] = {}
    for picture, sample in read_samples([str(path) for path in paths]):
        try:
            lines = decode_text(sample.get("txt", b"")).split("\n")
        except ValueError as error:
            raise ValueError(f"{root}: {picture.name}.txt is no UTF-8 text: {error}") from error
        texts[len(pictures)] = [line.strip() for line in lines if line.strip()]
        pictures.append(picture)
    return RetrievalSet(root, pictures, {caption_language: Gallery(split, texts)})


def _read_word(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; --root is the folder that CLIP_benchmark exports")
    return read_text(path).strip()
