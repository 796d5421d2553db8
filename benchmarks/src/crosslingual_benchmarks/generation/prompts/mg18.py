"""MG-18 rebuilt: captions of Crossmodal-3600 in eighteen languages, and their photographs.

The published set (arXiv 2308.09991) joins captions of Crossmodal-3600 (XM3600, arXiv 2205.12522)
and of WIT in the languages of AltDiffusion-m18, and measures FID and IS by torch-fidelity at 512
pixels and the similarity of OpenCLIP B/32 to the English caption, with 50 steps of DDIM at scale 9.
Which captions it took was not published. Here the captions are of XM3600 alone: WIT's have no
English counterpart of the same picture without its pages' links. Its captions in two languages say
the same picture each in its own words, they are no translations.
"""

import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crosslingual.data.text import iter_json_lines
from crosslingual_benchmarks.generation.prompts import Prompt, PromptSet

ENGLISH = "en"
LANGUAGES = "ar de en es fr hi it ja ko nl pl pt ru th tr uk vi zh".split()
"""Those of AltDiffusion-m18."""


def mg18(
    root: str | Path,
    languages: Sequence[str],
    num_prompts: int | None = None,
    *,
    seed: int = 0,
    use_references: bool = True,
) -> PromptSet:
    """A sample of XM3600's pictures with the first caption of each in every language.

    `num_prompts` of None takes all pictures. The sample depends neither on languages nor on the
    file's order. Without references there is no FID.

    Returns:
        A prompt a picture, whose id is the picture's key and whose `english` is its first English
        caption, in the order of the draw: a smaller sample is the beginning of a larger one.

    Raises:
        FileNotFoundError: no captions there, or photographs are missing.
        ValueError: a line is no entry of XM3600; a picture lacks a caption in one of the
            languages; there are fewer pictures.
    """
    path = Path(root) / "captions.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}; --root is the folder of Crossmodal-3600's captions.jsonl and images/"
        )
    wanted = list(dict.fromkeys(languages))
    entries = {}
    for number, fields in iter_json_lines(path):
        where = f"{path} line {number}"
        key = fields.get("image/key")
        if not isinstance(key, str) or key in entries or "/" in key:
            raise ValueError(f"{where} has no image/key of its own, as Crossmodal-3600 has")
        entries[key] = {name: _first(fields, name, where) for name in {*wanted, ENGLISH}}
    count = len(entries) if num_prompts is None else num_prompts
    if not 0 < count <= len(entries):
        raise ValueError(f"{path} has {len(entries)} pictures, of which num_prompts asks {count}")
    chosen = random.Random(seed).sample(sorted(entries), len(entries))[:count]
    prompts = [
        Prompt(
            id=key,
            prompts={name: entries[key][name] for name in wanted},
            english=entries[key][ENGLISH],
            image=Path(root) / "images" / f"{key}.jpg" if use_references else None,
        )
        for key in chosen
    ]
    _check_photographs(prompts)
    protocol = {"captions": "first", "prompt_set": "XM3600 without WIT", "sample_seed": seed}
    return PromptSet("mg18", prompts, protocol)


def _first(fields: dict[str, Any], language: str, where: str) -> str:
    """The first caption of an entry in a language, in NFC."""
    entry = fields.get(language)
    captions = entry.get("caption") if isinstance(entry, dict) else None
    if not isinstance(captions, list) or not captions or not isinstance(captions[0], str):
        found = sorted(name for name in fields if isinstance(fields[name], dict))
        raise ValueError(f"{where} has no caption in {language!r}; it has {', '.join(found)}")
    return unicodedata.normalize("NFC", captions[0])


def _check_photographs(prompts: list[Prompt]) -> None:
    missing = [prompt.image for prompt in prompts if prompt.image and not prompt.image.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(prompts)} photographs are missing, the first {missing[0]}: "
            "FID against fewer would not be comparable; download them, or give "
            "--use_references false"
        )
