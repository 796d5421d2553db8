"""Worlds: small complete universes to train and measure in, found by name and never imported.

A distribution registers a world under the entry point group `crosslingual.worlds`; the name of the
entry point is the prefix of its models: `testbed:sd` is the model `sd` of the world `testbed`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

REMEDY = "install crosslingual-worlds: pip install -e tools/worlds, or a method with its [demo]"


@dataclass(frozen=True)
class World:
    """What a world registers.

    Attributes:
        name: the prefix of its models.
        languages: BCP-47 codes of the languages that its captions speak.
        models: names to the folders that hold them.
        sources: names to generators of records, for `crosslingual shards --source NAME`.
    """

    name: str
    languages: tuple[str, ...]
    models: Mapping[str, Path]
    sources: Mapping[str, Callable[..., Iterator[Any]]]


@cache
def find_worlds() -> dict[str, World]:
    """Every world that is installed, by name."""
    return {entry.name: entry.load() for entry in entry_points(group="crosslingual.worlds")}


def model_folder(name: str) -> Path | None:
    """The folder of a world's model such as `testbed:sd`, or None for a name that is no world's.

    Raises:
        ValueError: the world is not installed, or has no such model.
    """
    prefix, colon, model = name.partition(":")
    if not colon or "/" in prefix or len(prefix) < 2:  # a drive letter is no world
        return None
    worlds = find_worlds()
    if prefix not in worlds:
        raise ValueError(f"{name} is a model of the world {prefix!r}, which is not here: {REMEDY}")
    models = worlds[prefix].models
    if model not in models:
        known = ", ".join(f"{prefix}:{name}" for name in models)
        raise ValueError(f"no embedded model {name!r}; there are {known}")
    return models[model]
