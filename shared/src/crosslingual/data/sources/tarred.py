"""Shards that others wrote: by img2dataset and open_clip, and with captions under JSON keys.

Training reads such shards as they are; writing them anew adds an index, languages and a culture.
"""

from collections.abc import Iterator, Mapping

from crosslingual.data.languages import LanguageCode
from crosslingual.data.records import Record
from crosslingual.data.shards import expand_shards, iter_shards

PEA_KEYS = {"caption_en": "en", "caption_zh": "zh"}


def webdataset(
    input: str,
    *,
    caption_language: LanguageCode = "en",
    caption_lines: bool = False,
    faults: dict[str, str] | None = None,
) -> Iterator[Record]:
    """Reads pictures with `KEY.txt`, and `KEY.json` where there is one; as `iter_shards`, whose
    `faults` these are.

    Args:
        input: folder, tar file, brace range, fsspec address, pipe:COMMAND, or several joined by
            `::`.
        caption_language: language of the captions that name none.
        caption_lines: whether each line of `KEY.txt` is a caption, as in CLIP_benchmark's shards.
    """
    options = {"caption_language": caption_language, "caption_lines": caption_lines}
    return iter_shards(expand_shards(input), faults=faults, **options)


def json_keys(
    input: str,
    *,
    caption_keys: Mapping[str, str] | None = None,
    faults: dict[str, str] | None = None,
) -> Iterator[Record]:
    """Reads pictures with `KEY.json` whose keys name the languages, as PEA and AltDiffusion do.

    Args:
        input: as for `webdataset`.
        caption_keys: JSON keys and their languages; caption_en=en caption_zh=zh if not given.
    """
    return iter_shards(expand_shards(input), faults=faults, key_map=caption_keys or PEA_KEYS)
