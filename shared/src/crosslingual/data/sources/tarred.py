"""Shards that others wrote: by img2dataset and open_clip, and with captions under JSON keys.

Training reads such shards as they are; writing them anew adds an index, languages and a culture.
"""

from collections.abc import Iterator, Mapping

from crosslingual.data.records import Record
from crosslingual.data.shards import expand_shards, iter_shards

PEA_KEYS = {"caption_en": "en", "caption_zh": "zh"}


def webdataset(input: str, *, caption_language: str = "en") -> Iterator[Record]:
    """Reads `KEY.jpg|png|webp` with `KEY.txt`, and `KEY.json` where there is one; as `iter_shards`.

    Args:
        input: folder, tar file, brace range, fsspec address, or several joined by `::`.
        caption_language: language of `KEY.txt`.
    """
    return iter_shards(expand_shards(input), caption_language=caption_language)


def json_keys(input: str, *, key_map: Mapping[str, str] | None = None) -> Iterator[Record]:
    """Reads `KEY.jpg` with `KEY.json` whose keys name the languages, as PEA and AltDiffusion do.

    Args:
        input: as for `webdataset`.
        key_map: JSON keys and their languages; caption_en=en caption_zh=zh if not given.
    """
    return iter_shards(expand_shards(input), key_map=key_map or PEA_KEYS)
