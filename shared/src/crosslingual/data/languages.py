"""Languages: the one rule for the tags that people write, and for those that a data set has.

Tags are BCP-47's (`de`, `zh-Hans`, `pt-BR`), in the form that its registry prefers: `EN` is `en`,
`zh_CN` is `zh-CN`, `iw` is `he`, `tl` is `fil`.
"""

import contextlib
import functools
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated

logger = logging.getLogger(__name__)


@functools.lru_cache(4096)
def parse_language(text: str) -> str:
    """A tag in its standard form.

    Raises:
        ValueError: it is none; the tag that is probably meant is named: `ja` for `jp`.
    """
    import langcodes  # 30 ms, which commands without a language save

    try:
        tag = langcodes.standardize_tag(text)
        if tag[1:2] != "-" and langcodes.get(tag).is_valid():  # x-... is whatever anyone likes
            return tag
    except (ValueError, TypeError, AttributeError):
        pass
    raise ValueError(f"{text!r:.40} is no language code (BCP-47){_probably(str(text))}")


LanguageCode = Annotated[str, parse_language]
"""The type of a setting that holds a language."""


def is_english(tag: str) -> bool:
    """Whether a tag names English, of whichever region."""
    return _kind(parse_language(tag)) == _kind("en")


def match_language(wanted: str, found: Collection[str]) -> str | None:
    """The tag of `found` that a wanted one means: itself, or else the only one of the same language
    and script (`en` finds `en-US`, `zh-TW` finds `zh-Hant` and never `zh`), or None.

    Raises:
        ValueError: several are as near; they are named.
    """
    if wanted in found:
        return wanted
    tag = parse_language(wanted)
    if tag in found:
        return tag
    near = sorted(each for each in found if _kind(parse_language(each)) == _kind(tag))
    if len(near) > 1:
        raise ValueError(f"{wanted!r} may be {' or '.join(near)}: name one of them")
    return near[0] if near else None


def match_languages(wanted: Iterable[str], found: Collection[str]) -> dict[str, str]:
    """`match_language` of each, which must be there.

    Raises:
        ValueError: one is not there, is ambiguous, or two wanted ones mean the same.
    """
    matched: dict[str, str] = {}
    for language in wanted:
        name = match_language(language, found)
        if name is None:
            there = ", ".join(sorted(found)) or "none"
            raise ValueError(
                f"no sample has captions in {language!r}; there are captions in {there}"
            )
        for other, taken in matched.items():
            if taken == name and other != language:
                raise ValueError(f"{other!r} and {language!r} are the same captions: name one")
        matched[language] = name
    return matched


def find_tags(
    languages: Iterable[str], counts: Mapping[str, int], is_whole: bool = True
) -> dict[str, list[str]]:
    """The tags that samples with those counts have for each of the languages, and for English, of
    which any will do for a teacher. `is_whole` says that no other samples have more languages.
    """
    wanted = [name for name in languages if is_whole or match_language(name, counts)]
    tags = {name: [tag] for name, tag in match_languages(wanted, counts).items()}
    if "en" not in tags:
        english = sorted(filter(is_english, counts), key=lambda tag: -counts[tag])
        tags["en"] = ["en"] if "en" in counts else english
    for name, found in tags.items():
        if found not in ([], [name]):
            logger.warning("captions in %s are read as %s", " and ".join(found), name)
    return tags


def rename_captions(captions: dict[str, list[str]], tags: Mapping[str, list[str]]) -> None:
    """Moves a sample's captions to the names that `find_tags` found their tags for."""
    for name, found in tags.items():
        tag = next((tag for tag in found if tag in captions), None)
        if tag is not None and name not in captions:
            captions[name] = captions[tag] if tag in tags else captions.pop(tag)


def describe_counts(
    languages: Iterable[str], counts: Mapping[str, int], num_counted: int, num_samples: int
) -> str:
    """One line of how many samples have captions in each language, and in English, from which
    most methods learn.
    """
    first = f"the first {num_counted} of " if num_counted < num_samples else ""
    names = dict.fromkeys([*languages, "en"])
    return f"captions of {first}{num_samples} samples: " + ", ".join(
        f"{name} {counts.get(name, 0)}" for name in names
    )


@functools.lru_cache(4096)
def _kind(tag: str) -> tuple[str | None, str | None]:
    """Language and script of a tag; `nb` counts as `no` here, and `cmn` as `zh`."""
    import langcodes

    likely = langcodes.get(langcodes.standardize_tag(tag, macro=True)).maximize()
    return ("no" if likely.language == "nb" else likely.language), likely.script


def _probably(text: str) -> str:
    """Words for a message: the language of a country code, or of a language's name."""
    import langcodes

    words, head = text.replace("_", " "), re.split("[^a-zA-Z]", text)[0]
    tag = None
    if re.fullmatch("[a-zA-Z]{2}", text):
        likely = langcodes.Language.make(territory=text.upper()).maximize()
        tag = likely.language if likely.language != "en" else None
    elif words.replace(" ", "").isalpha():
        with contextlib.suppress(LookupError):
            tag = langcodes.find(words).to_tag()
    elif langcodes.tag_is_valid(head):
        tag = head
    return f"; did you mean {tag!r}?" if tag else ", such as de, zh-Hans or pt-BR"
