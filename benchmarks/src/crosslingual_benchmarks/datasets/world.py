"""What a world searches: all its scenes as true pictures, with their captions in every language."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crosslingual.worlds import find_world
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    Picture,
    RetrievalSet,
    choose_languages,
)


def world_set(
    world: str, *, split: str | None = None, languages: Sequence[str] = ()
) -> RetrievalSet:
    """A gallery of a world, its first if no `split` names another; those within it are subsets.

    A scene that a language has no words for is not in that language's gallery.

    Raises:
        ValueError: the world has no galleries, not that one, or not that language.
    """
    found = find_world(world)
    evaluation = found.evaluation
    if evaluation.galleries is None:
        raise ValueError(
            f"the world {world} has no galleries: write its test split by `crosslingual shards`, "
            "and give --dataset shards"
        )
    named = evaluation.galleries()
    whole = split or next(iter(named))
    if whole not in named:
        raise ValueError(f"the world {world} has no split {whole!r}; it has {', '.join(named)}")
    places = {scene: place for place, scene in enumerate(named.pop(whole))}
    parts = {name: part for name, part in named.items() if places.keys() >= set(part)}
    pictures = [
        Picture(f"{place:05d}", _drawn(evaluation.draw, scene, place))
        for scene, place in places.items()
    ]
    galleries = {
        language: Gallery(
            whole,
            {
                place: [text]
                for scene, place in places.items()
                if (text := evaluation.caption(scene, language)) is not None
            },
        )
        for language in choose_languages(languages, found.languages, f"the world {world}")
    }
    subsets = {name: frozenset(places[one] for one in part) for name, part in parts.items()}
    return RetrievalSet(world, pictures, galleries, subsets)


def _drawn(draw: Callable[[Any, Any], Any], scene: Any, place: int) -> Callable[[], bytes]:
    def read() -> bytes:
        buffer = io.BytesIO()
        draw(scene, np.random.default_rng(place)).save(buffer, format="png")
        return buffer.getvalue()

    return read
