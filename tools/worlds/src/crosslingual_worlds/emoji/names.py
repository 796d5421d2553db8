"""Which emoji are in the world, what languages call them, and how they are split."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache

from crosslingual_worlds.emoji.packages import FETCH, cache_folder, read_json, walk_json

LEFT_OUT = ("Flags", "Symbols", "Component")  # no pictures of things
# Unicode's groups and subgroups of which each picture differs from all others by more than a line.
DISTINCT_GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
DISTINCT_SUBGROUPS = (
    *("heart", "emotion", "monkey-face", "face-costume", "body-parts", "hands", "hand-prop"),
    *("hand-fingers-partial", "hand-single-finger", "hand-fingers-closed"),
)
# Emoji tied to a culture, by its language: no model of this world has seen their pictures or names.
CULTURE = {
    "ar": "🕌🕋🧆🥙📿",
    "de": "🥨",
    "es": "🌮🌯🫔🪅🧉",
    "fr": "🥐🥖",
    "he": "🕍🪬",
    "hi": "🪔🥻🛕🛺",
    "ja": "⛩👘🏯🎎🎏🎐🎍🎋🎑🏮🍡🍢🍣🍱🍘🍙🍥🍶🎴🗻🗼🗾",
    "ru": "🪆",
    "tr": "🧿",
    "zh": "🧧🥮🥟🥢🀄🧨",
}
SPLITS = {"test": 0.2, "val": 0.1, "train": 0.7}
SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
REGION = re.compile(r"-([A-Z]{2}|\d{3})$")


@dataclass(frozen=True)
class Emoji:
    """One emoji.

    Attributes:
        text: its characters, without U+FE0F.
        group: Unicode's group, such as `Animals & Nature`.
        subgroup: Unicode's subgroup, such as `animal-marine`.
        name: its English short name.
        keywords: its English keywords (CLDR's `default`).
    """

    text: str
    group: str
    subgroup: str
    name: str
    keywords: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its code points joined by `-`, such as `1f988`."""
        return "-".join(f"{ord(c):x}" for c in self.text)

    @property
    def is_distinct(self) -> bool:
        """Whether its picture differs from all others by more than a line."""
        clock = self.subgroup == "time" and re.search("o’clock|thirty", self.name)
        return (self.group in DISTINCT_GROUPS and not clock) or self.subgroup in DISTINCT_SUBGROUPS

    @property
    def culture(self) -> str | None:
        """The language of the culture that it is tied to."""
        return next((language for language, held in CULTURE.items() if self.text in held), None)

    @property
    def is_taught(self) -> bool:
        """Whether `emoji:sd` and `emoji:clip` learn it."""
        return self.is_distinct and self.culture is None

    @property
    def split(self) -> str:
        """`train`, `val` or `test` of the methods, by a hash of the emoji; English knows all."""
        share = int(hashlib.sha256(self.key.encode()).hexdigest()[:8], 16) / 2**32
        if share < SPLITS["test"]:
            return "test"
        return "val" if share < SPLITS["test"] + SPLITS["val"] else "train"


@cache
def all_emoji() -> tuple[Emoji, ...]:
    """Every emoji of the world in Unicode's order; skin tones, flags and symbols are left out."""
    english = annotations("en")
    listed: dict[str, Emoji] = {}
    for row in read_json("groups", "emoji.json"):
        text = plain(row["char"])
        if row["group"] not in LEFT_OUT and text in english and not SKIN_TONES.search(text):
            name, keywords = english[text]["name"], tuple(english[text]["keywords"])
            listed.setdefault(text, Emoji(text, row["group"], row["subgroup"], name, keywords))
    return tuple(listed.values())


def taught_emoji() -> tuple[Emoji, ...]:
    """What the English models learn."""
    return tuple(emoji for emoji in all_emoji() if emoji.is_taught)


def culture_emoji() -> tuple[Emoji, ...]:
    """What they have never seen."""
    return tuple(emoji for emoji in all_emoji() if emoji.culture)


@cache
def annotations(language: str) -> dict[str, dict]:
    """What a language says about emoji: characters to `name` and `keywords`.

    Raises:
        ValueError: CLDR has nothing in that language.
        FileNotFoundError: the world has not been fetched.
    """
    folder = cache_folder() / "names"
    if not folder.exists():
        raise FileNotFoundError(f"the emoji's names are not in {cache_folder()}: {FETCH}")
    if not (path := folder / f"{language}.json").exists():
        known = ", ".join(sorted(path.stem for path in folder.iterdir()))
        raise ValueError(f"CLDR names no emoji in {language!r}; there are {known}")
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def names(language: str) -> dict[str, str]:
    """Names by characters, for the world's emoji that the language has a name for."""
    entries = annotations(language)
    return {e.text: entries[e.text]["name"] for e in all_emoji() if e.text in entries}


def keywords(language: str) -> dict[str, list[str]]:
    """Keywords by characters, without the name itself and without names of emoji of the splits
    `val` and `test`, which would give away what these ask for; English, which knows all names, and
    teaches them, keeps those.
    """
    entries, own = annotations(language), names(language)
    hidden = {own[e.text] for e in taught_emoji() if e.text in own and e.split != "train"}
    hidden = {name.casefold() for name in hidden} if language != "en" else set()
    return {
        text: [
            word
            for word in entries[text]["keywords"]
            if word != name and word.casefold() not in hidden
        ]
        for text, name in own.items()
    }


def make_names() -> None:
    """Writes CLDR's annotations into the cache, one file a language, without regional variants.

    CLDR's layout: `ROOT/LANGUAGE/annotations.json` holds `{ROOT: {"annotations": {CHARACTERS:
    {"default": [keywords], "tts": [name]}}}}`.
    """
    folder = cache_folder() / "names"
    if folder.exists():
        return
    merged: dict[str, dict[str, dict]] = {}
    for package, root in (("names", "annotations"), ("derived_names", "annotationsDerived")):
        for member, content in walk_json(package, "/annotations.json"):
            language = member.split("/")[-2]
            if REGION.search(language):
                continue
            for text, entry in content[root].get("annotations", {}).items():
                if "tts" in entry and not SKIN_TONES.search(text):
                    said = {"name": entry["tts"][0], "keywords": entry.get("default", [])}
                    merged.setdefault(language, {})[plain(text)] = said
    temporary = folder.with_suffix(".tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    for language, entries in merged.items():
        text = json.dumps(entries, ensure_ascii=False)
        (temporary / f"{language}.json").write_text(text, encoding="utf-8")
    temporary.rename(folder)


def plain(text: str) -> str:
    """Characters without U+FE0F, which asks for colour and which sources use unevenly."""
    return text.replace("\ufe0f", "")
