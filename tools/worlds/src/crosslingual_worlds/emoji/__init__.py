"""The emoji world: real pictures, names in 120 languages, a judge, and a published encoder.

`emoji:sd` and `emoji:clip` are shipped; pictures, names and `emoji:e5` are fetched once into a
cache: `crosslingual-worlds fetch emoji`. Sources, licences and attributions are in README.md.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from crosslingual.worlds import World
from crosslingual_worlds.emoji.languages import FACTS, LANGUAGES
from crosslingual_worlds.emoji.packages import (
    E5_FOLDER,
    FETCH,
    STANDARDISED_FOLDER,
    cache_folder,
)
from crosslingual_worlds.emoji.source import emoji

WEIGHTS = Path(__file__).parent / "weights"
FETCHED = {"e5": E5_FOLDER, "e5-standardised": STANDARDISED_FOLDER}


class _Models(Mapping[str, Path]):
    """The world's model folders; one that has to be fetched says so when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(("sd", "clip", *FETCHED))

    def __len__(self) -> int:
        return 2 + len(FETCHED)

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)

    def __getitem__(self, name: str) -> Path:
        if name in ("sd", "clip"):
            return WEIGHTS / name
        folder = cache_folder() / FETCHED[name]
        if not folder.exists():
            raise FileNotFoundError(f"emoji:{name} is not in {cache_folder()}: {FETCH}")
        return folder


WORLD = World(
    name="emoji",
    languages=LANGUAGES,
    models=_Models(),
    sources={"emoji": emoji},
    evaluation_name="crosslingual_worlds.emoji.evaluation:EVALUATION",
    shapes=json.loads(Path(__file__).with_name("shapes.json").read_text("utf-8")),
    language_facts=FACTS,
)
