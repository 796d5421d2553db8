"""Prompts for pictures, and the small culture set that replaces MC-18.

A prompt file is JSON lines, an object a prompt:

    {"id": "de-food", "aspect": "food", "culture": "de",
     "prompts": {"de": "Schwarzwälder Kirschtorte ..."},
     "english": "Black Forest cherry cake ...", "about": "A cake of chocolate sponge ..."}

| key | what |
|---|---|
| `id` | its own name within the file; needed |
| `prompts` | BCP-47 code to text, one language or many; needed |
| `english` | the same in English: what the CLIP score compares with and what the English upper bound reads; may be left out where `prompts` has `en` |
| `culture` | the language whose culture it asks for; left out in a general prompt |
| `aspect` | of a culture, one of `ASPECTS` in our set, any word in yours |
| `about` | a line of explanation for readers |
| `image` | a photograph of it, the path from the file's folder: a reference for FID |

`mc18.jsonl` has the six aspects of MC-18 (arXiv 2308.09991), whose own prompts were never released,
in the eighteen languages of AltDiffusion-m18: six prompts a language, 108 in all. They are ours,
written by non-native speakers; corrections are welcome. Their scores cannot be compared with MC-18's.
"""  # noqa: E501, a table's row is one line

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosslingual.cli.settings import nearest_name
from crosslingual.data.languages import parse_language
from crosslingual.data.text import find_inside, iter_json_lines

ASPECTS = ("painting", "literature", "festival", "food", "clothes", "landmark")
MC18_FILE = Path(__file__).parent / "mc18.jsonl"

_TEXT_KEYS = ("id", "english", "aspect", "culture", "about", "image")


@dataclass(frozen=True)
class Prompt:
    """The prompt of a picture, in one language or several.

    `prompts` maps languages to texts. `culture` is the language whose culture it asks for, None in
    a general prompt. `scene` is the prompt's content as its world describes it, for the judge.
    """

    id: str
    prompts: dict[str, str]
    english: str
    aspect: str | None = None
    culture: str | None = None
    about: str = ""
    image: Path | None = None
    scene: Any = None


@dataclass(frozen=True)
class PromptSet:
    """Prompts and where they come from.

    A prompt's place decides its noise. `protocol` holds all else that must be equal before two
    results may be compared.
    """

    name: str
    prompts: list[Prompt]
    protocol: dict[str, Any]

    @property
    def languages(self) -> list[str]:
        """Those that some prompt has, in order of appearance."""
        return list(dict.fromkeys(name for prompt in self.prompts for name in prompt.prompts))

    def of(self, language: str) -> list[Prompt]:
        """The prompts that have a language.

        Raises:
            ValueError: there are none.
        """
        chosen = [prompt for prompt in self.prompts if language in prompt.prompts]
        if not chosen:
            raise ValueError(
                f"{self.name} has no prompt in {language!r}; it has {', '.join(self.languages)}"
            )
        return chosen


def read_prompts(path: str | Path) -> list[Prompt]:
    """Reads a prompt file; texts come back in NFC.

    Raises:
        FileNotFoundError: there is no such file, or a photograph that it names is missing.
        ValueError: a line is not a prompt, repeats an id, or names a photograph outside of the
            file's folder; file and line are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file {path}; give --prompts a file of JSON lines")
    lines: dict[str, int] = {}
    prompts = []
    for number, fields in iter_json_lines(path):
        where = f"{path} line {number}"
        prompt = _prompt(fields, path.parent, where)
        if prompt.id in lines:
            raise ValueError(f"{where} repeats the id {prompt.id!r} of line {lines[prompt.id]}")
        lines[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path} is empty: write a prompt a line")
    return prompts


def mc18() -> PromptSet:
    """Our 108 culture prompts, six aspects in eighteen languages."""
    return PromptSet("mc18", read_prompts(MC18_FILE), {"prompt_set": "ours, in MC-18's place"})


def _prompt(fields: dict[str, Any], folder: Path, where: str) -> Prompt:
    """A line's object as a prompt."""
    for name in fields:
        if name not in (*_TEXT_KEYS, "prompts"):
            near = nearest_name(name, [*_TEXT_KEYS, "prompts"])
            raise ValueError(f"{where} has the unknown key {name!r}{near}")
    missing = [name for name in ("id", "prompts") if name not in fields]
    if missing:
        raise ValueError(f"{where} lacks {' and '.join(missing)}")
    texts = fields["prompts"]
    if not isinstance(texts, dict) or not texts:
        raise ValueError(f'{where}: prompts must be an object such as {{"de": "ein Haus"}}')
    told = {f"prompts of {language}": text for language, text in texts.items()}
    # null is a key that is left out
    told |= {name: fields[name] for name in _TEXT_KEYS if fields.get(name) is not None}
    for name, text in told.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {name} is {text!r}; a text is needed")
    try:
        languages = [parse_language(language) for language in texts]
        culture = parse_language(told["culture"]) if "culture" in told else None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if len(set(languages)) < len(languages):
        raise ValueError(f"{where} names a language twice among {', '.join(texts)}")
    normal = (unicodedata.normalize("NFC", text) for text in texts.values())
    texts = dict(zip(languages, normal, strict=True))
    english = told.get("english", texts.get("en"))
    if english is None:
        raise ValueError(f"{where} lacks english, which the CLIP score is measured against")
    image = None
    if "image" in told:
        try:
            image = find_inside(folder, told["image"], remedy="give --reference_dir instead")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if not image.is_file():
            raise FileNotFoundError(f"{where}: no photograph {image}")
    return Prompt(
        id=told["id"],
        prompts=texts,
        english=unicodedata.normalize("NFC", english),
        aspect=told.get("aspect"),
        culture=culture,
        about=told.get("about", ""),
        image=image,
    )
