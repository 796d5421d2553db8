"""Captions of the picture world in eighteen languages, written from lexicon files that speakers
can correct.

A lexicon (`lexicons/LANGUAGE.yaml`) gives every noun its gender and its forms by case, every
adjective its forms, and templates in which a phrase asks for a case: `{b:dat}`.
`lexicons/README.md` explains the fields.
"""

import functools
import string
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import COLORS, RELATIONS, SHAPES, SIZES, Scene, Thing

LEXICON_FOLDER = Path(__file__).parent / "lexicons"


def _inflect(forms: str | dict[str, str], gender: str, case: str, what: str) -> str:
    """Returns the form for a gender and a case: `gender.case`, `gender`, `case` or else `any`."""
    if isinstance(forms, str):
        return forms
    for key in (f"{gender}.{case}", gender, case, "any"):
        if key in forms:
            return forms[key]
    raise ValueError(f"{what} has no form for {gender}.{case}; it has {', '.join(forms)}")


class _Fields(string.Formatter):
    """Formats `{a:dat}` by calling the phrase writer with the case, which replaces Python's format
    codes.
    """

    def format_field(self, value: Any, format_spec: str) -> str:
        return (
            value(format_spec or "nom")
            if callable(value)
            else super().format_field(value, format_spec)
        )


@dataclass(frozen=True)
class Lexicon:
    """One language's words and templates; the fields are those of the file."""

    language: str
    name: str
    nouns: dict[str, dict[str, str]]
    colors: dict[str, Any]
    sizes: dict[str, Any]
    phrases: dict[str, str]
    single: list[str]
    relations: dict[str, list[str]]
    articles: Any = ""

    def __post_init__(self) -> None:
        """Checks the fields."""
        wanted = {
            "nouns": {*SHAPES, *MOTIFS},
            "colors": set(COLORS),
            "sizes": set(SIZES),
            "relations": set(RELATIONS),
        }
        for field, keys in wanted.items():
            if set(getattr(self, field)) != keys:
                odd = sorted(set(getattr(self, field)) ^ keys)
                raise ValueError(
                    f"lexicon {self.language}: {field} lacks or does not know {', '.join(odd)}"
                )

    def phrase(self, thing: Thing, case: str = "nom") -> str:
        """The noun phrase of a thing in a case, "ein großer roter Stern"."""
        noun = self.nouns[thing.shape]
        gender = noun.get("gender", "any")
        what = f"lexicon {self.language}"
        words = {
            **noun,
            "article": _inflect(self.articles, gender, case, f"{what}: articles"),
            "size": _inflect(self.sizes[thing.size], gender, case, f"{what}: {thing.size}"),
            "noun": _inflect(noun, gender, case, f"{what}: {thing.shape}"),
        }
        if thing.color is None:
            return self.phrases["motif"].format(**words)
        words["color"] = _inflect(self.colors[thing.color], gender, case, f"{what}: {thing.color}")
        return self.phrases["object"].format(**words)

    def captions(self, scene: Scene) -> list[str]:
        """Returns a scene's captions, one per template; for two things also those of the mirrored
        scene, after the scene's own.
        """
        if scene.second is None:
            return [
                _Fields().format(text, a=lambda case: self.phrase(scene.first, case))
                for text in self.single
            ]
        written = []
        for said in (scene, scene.mirrored):
            phrases = {
                "a": functools.partial(self.phrase, said.first),
                "b": functools.partial(self.phrase, said.second),
            }
            written += [_Fields().format(text, **phrases) for text in self.relations[said.relation]]
        return written

    def mixed_caption(self, scene: Scene, other: "Lexicon") -> str:
        """The first caption of a scene of two things, with the second one named in the other
        language: in the form of its dictionary, and between spaces.
        """
        phrases = {
            "a": functools.partial(self.phrase, scene.first),
            "b": lambda case: f" {other.phrase(scene.second)} ",
        }
        return " ".join(_Fields().format(self.relations[scene.relation][0], **phrases).split())


@functools.cache
def lexicon(language: str) -> Lexicon:
    """Reads the lexicon of one of the eighteen languages."""
    if language not in LANGUAGES:
        raise ValueError(f"no lexicon for {language!r}; there are {', '.join(LANGUAGES)}")
    entries = yaml.safe_load((LEXICON_FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))
    known = {field.name for field in fields(Lexicon)}
    needed = {field.name for field in fields(Lexicon) if field.default is MISSING}
    odd = sorted((needed - set(entries)) | (set(entries) - known))
    if odd:
        raise ValueError(f"lexicon {language} lacks or does not know the field {', '.join(odd)}")
    return Lexicon(**entries)


def caption(scene: Scene, language: str) -> str:
    """Returns the first caption of a scene in a language: "a big red star to the left of a small
    blue ring".
    """
    return lexicon(language).captions(scene)[0]


def mixed_caption(scene: Scene, first: str, second: str) -> str:
    """Returns a caption of two things in two languages: the sentence and its first thing in
    `first`, its second thing in `second`: "ein großer roter Stern links von a small blue ring".

    A language mixed with itself gives `caption`.

    Raises:
        ValueError: the scene has one thing, or a language has no lexicon.
    """
    if scene.second is None:
        raise ValueError(f"{scene.scene_id} has one thing: two languages need two")
    if first == second:
        return caption(scene, first)
    return lexicon(first).mixed_caption(scene, lexicon(second))
