"""Prompts that people type: which are refused, which are examples, and which the judge knows."""

import unicodedata
from typing import Any

from crosslingual.data.text import check_characters
from crosslingual.worlds import World
from crosslingual_benchmarks.generation.prompts import mc18

MAX_CHARACTERS = 1000  # several times what any text encoder here reads
MAX_SEED = 2**32 - 1
SHOWN = (
    "en de zh ja ko hi ar fa he ur ru uk el th ta te bn ka am my km vi tr fr es pl sw yo".split()
)
"""Languages of the examples, where they have captions: one or two of each script."""
NUM_SCENES = 200  # of each split, whose captions the judge knows


def check_prompt(text: Any) -> str:
    """A prompt without spaces at its ends, in one line and NFC.

    Raises:
        ValueError: a sentence for the page: it is empty, too long, or holds control characters.
    """
    if not isinstance(text, str):
        raise ValueError("The prompt is no text: type what the picture should show.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"The prompt has {len(text):,} characters: give at most {MAX_CHARACTERS:,}."
        )
    check_characters(text)
    text = " ".join(text.split())  # tabs and line ends are spaces
    for number, character in enumerate(text, 1):
        if unicodedata.category(character) == "Cc":
            code = f"U+{ord(character):04X}"
            raise ValueError(
                f"The prompt holds a control character ({code}, place {number}): type it again "
                "without."
            )
    if not any(unicodedata.category(character)[0] in "LNPSM" for character in text):
        raise ValueError("The prompt is empty: type what the picture should show, in any language.")
    return unicodedata.normalize("NFC", text)


def check_seed(seed: Any) -> int:
    """A seed from 0 to `MAX_SEED`; else a ValueError with a sentence for the page."""
    try:
        number = int(seed)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number != seed or not 0 <= number <= MAX_SEED:
        raise ValueError(f"The seed is no whole number from 0 to {MAX_SEED:,}.")
    return number


def example_prompts(world: World | None) -> list[tuple[str, str]]:
    """Languages and prompts in them, a prompt a language: a world's captions, or without a world
    our own culture prompts.
    """
    if world is None:
        prompts = mc18()
        chosen = [name for name in SHOWN if name in prompts.languages]
        return [
            (name, prompts.of(name)[number % 6].prompts[name]) for number, name in enumerate(chosen)
        ]
    evaluation = world.evaluation
    scenes = evaluation.scenes("test", NUM_SCENES, 0)  # among those that the judge knows
    said = [
        (name, evaluation.caption(scene, name))
        for name, scene in zip(SHOWN, scenes, strict=False)
        if name in world.languages
    ]
    return [(name, text) for name, text in said if text is not None]


def scenes_by_caption(world: World) -> dict[str, list[Any]]:
    """Scenes that the judge can look for, by their captions in all of the world's languages. Words
    of two languages may be equal and mean different things.
    """
    evaluation = world.evaluation
    found: dict[str, list[Any]] = {}
    shared = {
        scene: None
        for split in ("test", "val", "train")
        for scene in evaluation.scenes(split, NUM_SCENES, 0)
    }
    for language in world.languages:
        for scene in [*shared, *evaluation.culture_scenes(language, 2)]:
            text = evaluation.caption(scene, language)
            if text is not None:
                scenes = found.setdefault(unicodedata.normalize("NFC", text), [])
                if scene not in scenes:
                    scenes.append(scene)
    return found
