"""The emoji world's prompts and its judge: names, the taught emoji that they name, culture scores.

A scene is an emoji, a prompt its name. General prompts are taught emoji of a split: the base can
draw them, and in the languages that train a method has not read their names (`source` says what it
may read). The judge chooses among all distinct emoji, taught or not (933): chance is 0.001 at 1.
"""

import random
from functools import cache

import numpy as np
from PIL import Image

from crosslingual_worlds.emoji.judge import Judge, to_tensor
from crosslingual_worlds.emoji.languages import (
    LANGUAGES,
    language_groups,
    script_and_family_groups,
)
from crosslingual_worlds.emoji.names import (
    Emoji,
    all_emoji,
    culture_emoji,
    names,
    taught_emoji,
)
from crosslingual_worlds.emoji.pictures import RESOLUTION, load_pictures
from crosslingual_worlds.evaluation import Evaluation

BASE_SET = "noto"  # in whose style the base draws

_judge = cache(Judge.open)
_pictures = cache(load_pictures)


def scenes(split: str, count: int, seed: int) -> list[Emoji]:
    """A seeded sample of a split's taught emoji; they repeat once the split is exhausted.

    Those that every language names come first (120 of test's 193, 45 of val's 84), so that up to as
    many prompts ask for the same things, with the same noise, in all languages.

    Raises:
        ValueError: no such split.
    """
    drawn = distinct_scenes(split, None, seed)
    return [drawn[number % len(drawn)] for number in range(count)]


def distinct_scenes(split: str, count: int | None, seed: int) -> list[Emoji]:
    """The beginning of that sample, each emoji once; all of it for a `count` of None.

    Raises:
        ValueError: no such split, or it has fewer emoji.
    """
    members = [emoji for emoji in taught_emoji() if emoji.split == split]
    if not members:
        raise ValueError(f"no split {split!r} of taught emoji; there are train, val, test")
    if count is not None and count > len(members):
        raise ValueError(f"the {split} split has {len(members)} emoji, not {count}")
    random.Random(seed).shuffle(members)
    members.sort(key=lambda emoji: emoji.text not in _named_everywhere())  # stable
    return members[:count]


def culture_scenes(language: str, count: int) -> list[Emoji]:
    """Up to `count` emoji of the language's own culture; few languages have some."""
    return [emoji for emoji in culture_emoji() if emoji.culture == language][:count]


def galleries() -> dict[str, list[Emoji]]:
    """What is searched. `everywhere` holds the taught emoji that every language names, so that all
    languages search among the same pictures; `all` holds every distinct emoji.

    In a language that trains, methods have read the names of split `train`; `everywhere, test` and
    `test` hold none of these.
    """
    taught = taught_emoji()
    everywhere = [emoji for emoji in taught if emoji.text in _named_everywhere()]
    return {
        "everywhere": everywhere,
        "everywhere, test": [emoji for emoji in everywhere if emoji.split == "test"],
        "all": [emoji for emoji in all_emoji() if emoji.is_distinct],
        "taught": list(taught),
        "test": [emoji for emoji in taught if emoji.split == "test"],
        "culture": list(culture_emoji()),
    }


def caption(emoji: Emoji, language: str) -> str | None:
    """The emoji's name, or None where the language has none."""
    return names(language).get(emoji.text)


def draw(emoji: Emoji, rng: np.random.Generator) -> Image.Image:
    """The real picture, of the set that the base was taught with."""
    return Image.fromarray(_pictures(BASE_SET)[emoji.key])


def place(picture: Image.Image, emoji: Emoji) -> int:
    """How many other emoji the picture is nearer to.

    Raises:
        ValueError: the judge does not know this emoji.
    """
    judge = _judge()
    index = judge.index_of(emoji)
    return int(judge.rank(to_tensor([picture]))[0, index])


def shows(picture: Image.Image, emoji: Emoji) -> bool:
    """Whether the picture is nearer to this emoji than to any other."""
    return place(picture, emoji) == 0


@cache
def _named_everywhere() -> frozenset[str]:
    return frozenset.intersection(*(frozenset(names(language)) for language in LANGUAGES))


EVALUATION = Evaluation(
    resolution=RESOLUTION,
    scenes=scenes,
    distinct_scenes=distinct_scenes,
    culture_scenes=culture_scenes,
    draw=draw,
    caption=caption,
    shows=shows,
    is_shown=lambda emoji: True,
    place=place,
    galleries=galleries,
    groups=language_groups,
    further_groups=script_and_family_groups,
)
