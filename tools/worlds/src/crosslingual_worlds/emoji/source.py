"""The emoji world as records: real pictures with CLDR's names and English keywords."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosslingual.data.records import Record

SPLITS = ("train", "test", "culture", "all")


def emoji(
    *,
    languages: Sequence[str],
    split: str = "train",
    picture_set: str = "noto",
    keywords: bool = False,
    pictures: bool = True,
    only_distinct: bool = True,
) -> "Iterator[Record]":
    """Yields one record per emoji, with its name in each language that has one.

    Args:
        languages: of the names; they are parallel. Emoji that none of them names are left out.
        split: `train` or `test` of the taught emoji, `culture` (emoji that no model of the world
            has seen, each with the language of its culture), or `all` of these.
        picture_set: `noto`, `fluent`, `twemoji` or `openmoji`.
        keywords: adds the English keywords as further English captions.
        pictures: False leaves them out: parallel text alone.
        only_distinct: False adds, under `all`, the emoji that differ from others by a line.

    Raises:
        ValueError: an unknown split, language or set.
        FileNotFoundError: the world has not been fetched.
    """
    from crosslingual.data.records import Record
    from crosslingual_worlds.emoji.names import all_emoji, names
    from crosslingual_worlds.emoji.pictures import load_pictures

    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    words = {language: names(language) for language in languages}
    drawn = load_pictures(picture_set)
    for one in all_emoji():
        part = "culture" if one.culture else one.split
        if split not in ("all", part) or one.key not in drawn:
            continue
        if not one.is_distinct and (only_distinct or split != "all"):
            continue
        captions = {name: [said[one.text]] for name, said in words.items() if one.text in said}
        if keywords and "en" in captions:
            captions["en"] += [word for word in one.keywords if word != one.name]
        if captions:
            image = _png(drawn[one.key]) if pictures else None
            extra = {"emoji": one.text, "group": one.group, "subgroup": one.subgroup}
            yield Record(f"{part}-{one.key}", image, captions, True, one.culture, extra)


def _png(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
