"""The emoji world as records: real pictures with CLDR's names and keywords.

**What a method may train on.** English is the base's own language: it was taught every name of
the taught emoji, so a method may train on all of these in English (split `english`, or
`with_english`). In any other language that trains, it may train on the names of split `train`
alone: what `val` and `test` ask for in that language are names that its training never read there,
of emoji that it may know in English. Recipes are settled on `val`; `test` is for what is reported.
**Zero-shot** is a language of which training read no name and no keyword at all. Culture emoji are
those that the base was never taught; a method may train on their pictures, each named in its own
culture's language alone, if that language trains, and the culture score asks for just these.
"""

import hashlib
import io
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosslingual.data.records import Record
    from crosslingual_worlds.emoji.names import Emoji

KEYWORDS = ("none", "captions", "records", "pairs")
SPLITS = ("train", "val", "test", "english", "culture", "all")


def emoji(
    *,
    languages: Sequence[str],
    split: str = "train",
    with_english: bool = False,
    num_names: int | None = None,
    balanced: bool = False,
    num_culture_samples: int = 0,
    picture_set: str = "noto",
    keywords: str = "none",
    num_keywords: int | None = None,
    pictures: bool = True,
    only_distinct: bool = True,
    seed: int = 0,
) -> "Iterator[Record]":
    """Yields one record per emoji, with its name in each language that has one.

    Args:
        languages: of the names; they are parallel. Emoji that none of them names are left out.
        split: `train`, `val` or `test` of the taught emoji; `english`, all of these with their
            English names alone; `culture`, emoji that no model of the world has seen, each in the
            language of its culture; or `all`, every emoji in every language, to search among.
        with_english: adds to `train` the taught emoji of `val` and `test` with their English names
            alone, which the base knows too.
        num_names: the foreign names of so many emoji of `train` alone, of those that all of the
            languages name. `seed` chooses them, and fewer are among more. The order differs from
            that of the records and of the prompts. `with_english` keeps the English names of the
            others.
        balanced: repeats the records of `num_names`, where they are fewer than the English ones
            beside them, until they are about as many. An emoji's repeats follow one another, so
            that equal captions are encoded together, and once.
        num_culture_samples: records of the languages' own culture emoji to add, in turns, each
            named in its own language alone.
        picture_set: `noto`, `fluent`, `twemoji` or `openmoji`.
        keywords: `none`; `captions`, each language's keywords as further captions after the name;
            `records`, a further record for each of the English keywords; or `pairs`, one for each
            of the foreign keywords, beside the English name, which it does not translate but
            belongs to. Other languages' leave out the names of `val` and `test`.
        num_keywords: how many of `pairs` a name and language; all if None.
        pictures: False leaves them out: parallel text alone.
        only_distinct: False adds, under `all`, the emoji that differ from others by a line.
        seed: of the records' order under `train` and `english`.

    Raises:
        ValueError: an unknown split, language, set or kind of keywords; settings that do not fit.
        FileNotFoundError: the world has not been fetched.
    """
    _check(
        languages,
        split,
        with_english=with_english,
        num_names=num_names,
        balanced=balanced,
        num_culture_samples=num_culture_samples,
        keywords=keywords,
        num_keywords=num_keywords,
    )
    records = _Records(languages, picture_set, keywords, pictures, num_keywords)
    chosen = _chosen(split, only_distinct)
    if split in ("train", "english"):
        random.Random(seed).shuffle(chosen)
    few = chosen if num_names is None else _few(chosen, records.words, num_names, seed)
    num_records = Counter()  # by whether foreign languages name the emoji
    for one in chosen:
        named_in = languages if one in few else ["en"] if with_english else []
        if split == "culture":
            named_in = [name for name in languages if name == one.culture]
        for record in records.of(one, named_in):
            num_records[one in few] += 1
            yield record
    if with_english:
        for one in _chosen("val", True) + _chosen("test", True):
            for record in records.of(one, ["en"]):
                num_records[False] += 1
                yield record
    times = round(num_records[False] / max(num_records[True], 1)) if balanced else 1
    for one, number in itertools.product([e for e in chosen if e in few], range(1, times)):
        yield from records.of(one, languages, f"{one.split}-{one.key}-again-{number:03d}")
    for number, one in enumerate(_in_turns(languages, num_culture_samples)):
        yield from records.of(one, [one.culture], f"culture-{number:05d}-{one.key}")


def _check(
    languages: Sequence[str],
    split: str,
    *,
    with_english: bool,
    num_names: int | None,
    balanced: bool,
    num_culture_samples: int,
    keywords: str,
    num_keywords: int | None,
) -> None:
    """Refuses settings of `emoji` that do not fit, by a ValueError."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    if keywords not in KEYWORDS:
        raise ValueError(f"no keywords {keywords!r}; there are {', '.join(KEYWORDS)}")
    if (foreign := set(languages) - {"en"}) and split == "english":
        raise ValueError(f"split english has no names in {min(foreign)!r}: it is English alone")
    of_train = (with_english, balanced, num_culture_samples, num_names is not None)
    if any(of_train) and split != "train":
        raise ValueError(
            "with_english, balanced, num_names and num_culture_samples are of split train alone"
        )
    if balanced and not (with_english and num_names):
        raise ValueError(
            "balanced repeats few names among English ones: give num_names and with_english"
        )
    if num_keywords is not None and (keywords != "pairs" or num_keywords < 1):
        raise ValueError(
            "num_keywords counts keywords of the kind pairs: give keywords: pairs, and 1 or more"
        )
    if with_english and "en" not in languages:
        raise ValueError("with_english adds English names: name en among the languages")


class _Records:
    """Makes records of emoji."""

    def __init__(
        self,
        languages: Sequence[str],
        picture_set: str,
        keywords: str,
        pictures: bool,
        num_keywords: int | None,
    ):
        from crosslingual_worlds.emoji import names
        from crosslingual_worlds.emoji.pictures import load_pictures

        self.words = {language: names.names(language) for language in languages}
        self.further = {language: names.keywords(language) for language in languages}
        self.drawn = load_pictures(picture_set)
        self.kind, self.pictures, self.num_pairs = keywords, pictures, num_keywords

    def of(self, one: "Emoji", languages: Sequence[str], key: str = "") -> "Iterator[Record]":
        """The emoji's record, and those of its English keywords, if it is named and drawn."""
        from crosslingual.data.records import Record

        named = [name for name in languages if one.text in self.words[name]]
        if not named or one.key not in self.drawn:
            return
        captions = {name: [self.words[name][one.text]] for name in named}
        if self.kind == "captions":
            for name, texts in captions.items():
                texts += self.further[name][one.text]
        image = _png(self.drawn[one.key]) if self.pictures else None
        extra = {"emoji": one.text, "group": one.group, "subgroup": one.subgroup}
        culture = one.culture if named == [one.culture] else None
        key = key or f"{'culture' if one.culture else one.split}-{one.key}"
        yield Record(key, image, captions, culture is None, culture, extra)
        if "en" not in named:
            return
        for number, word in enumerate(self.further["en"][one.text]):
            if self.kind == "records":
                yield Record(f"{key}-{number}", image, {"en": [word]}, True, None, extra)
        for name in named if self.kind == "pairs" else ():
            words = self.further[name][one.text][: self.num_pairs] if name != "en" else ()
            for number, word in enumerate(words):
                beside = {"en": [self.words["en"][one.text]], name: [word]}
                yield Record(f"{key}-{name}-{number}", image, beside, True, None, extra)


def _chosen(split: str, only_distinct: bool) -> "list[Emoji]":
    """The emoji of a split, in Unicode's order."""
    from crosslingual_worlds.emoji.names import all_emoji, culture_emoji, taught_emoji

    if split == "all":
        return [one for one in all_emoji() if one.is_distinct or not only_distinct]
    if split == "culture":
        return list(culture_emoji())
    return [one for one in taught_emoji() if split in (one.split, "english")]


def _few(
    chosen: "list[Emoji]", words: dict[str, dict[str, str]], count: int, seed: int
) -> "set[Emoji]":
    """`count` of the emoji that all languages name. Prompts of `train` are drawn by the same seed:
    the order of a hash keeps the names that are read from being those that are asked for first.
    """
    named = [one for one in chosen if all(one.text in said for said in words.values())]
    if not 0 < count <= len(named):
        raise ValueError(
            f"num_names is {count}: {', '.join(words)} all name {len(named)} emoji of split train; "
            "ask for 1 to so many, or for fewer languages"
        )
    named.sort(key=lambda one: hashlib.sha256(f"{one.key} {seed}".encode()).digest())
    return set(named[:count])


def _in_turns(languages: Sequence[str], count: int) -> "Iterator[Emoji]":
    """`count` culture emoji, a language after another, each language's own in turns."""
    from crosslingual_worlds.emoji.names import culture_emoji

    own = {name: [e for e in culture_emoji() if e.culture == name] for name in languages}
    held = [itertools.cycle(emoji) for emoji in own.values() if emoji]
    if count and not held:
        raise ValueError(f"no culture emoji belong to {', '.join(languages)}")
    for number in range(count):
        yield next(held[number % len(held)])


def _png(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
