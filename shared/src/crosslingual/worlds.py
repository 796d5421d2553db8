"""Worlds: small complete universes to train and measure in, found by name and never imported.

A distribution registers a world under the entry point group `crosslingual.worlds`; the name of the
entry point is the prefix of its models: `testbed:sd` is the model `sd` of the world `testbed`.
Finding a world imports no torch: what is heavy is named and imported when it is used.
"""

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
        evaluation_name: `module:attribute` of what asks for pictures of this world and judges them;
            None where no such evaluation exists.
        shapes: configs by part, as `frozen.shapes` has them, of models that are fetched.
        language_facts: what is known of a language, for result lines and reports: its English
            `name`, `script`, `family`, and whether it is `known` or `unknown` to the `encoder`.
    """

    name: str
    languages: tuple[str, ...]
    models: Mapping[str, Path]
    sources: Mapping[str, Callable[..., Iterator[Any]]]
    evaluation_name: str | None = None
    shapes: Mapping[str, Mapping[str, dict[str, Any]]] = field(default_factory=dict)
    language_facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def evaluation(self) -> Any:
        """Scenes, their captions, the judge and the contact sheet of this world, which
        `crosslingual_worlds.evaluation.Evaluation` describes.
        """
        if self.evaluation_name is None:
            raise ValueError(f"the world {self.name} has no judged prompts: choose another world")
        return pkgutil.resolve_name(self.evaluation_name)


@cache
def find_worlds() -> dict[str, World]:
    """Every world that is installed, by name."""
    return {entry.name: entry.load() for entry in entry_points(group="crosslingual.worlds")}


def find_world(name: str) -> World:
    """The world of that name, or of a model's name such as `testbed:sd`."""
    prefix = name.partition(":")[0]
    worlds = find_worlds()
    if prefix not in worlds:
        raise ValueError(
            f"{name} belongs to the world {prefix!r}, which is not installed: {REMEDY}"
        )
    return worlds[prefix]


def model_folder(name: str) -> Path | None:
    """The folder of a world's model such as `testbed:sd`, or None for a name without a world.

    Raises:
        ValueError: the world is not installed, or has no such model.
    """
    prefix, colon, model = name.partition(":")
    if not colon or "/" in prefix or len(prefix) < 2:  # one letter: a Windows drive
        return None
    models = find_world(name).models
    if model not in models:
        known = ", ".join(f"{prefix}:{name}" for name in models)
        raise ValueError(f"no embedded model {name!r}; there are {known}")
    return models[model]


def contact_sheet(cells: Sequence[Sequence[tuple]], **options: Any) -> Any:
    """A picture of pictures in rows and columns, each above its text in the text's own script.

    A cell is (picture, text, language) or (picture, text, language, mark): True draws a green
    frame, False a red one. Options are column_heads, row_heads, row_languages, picture_size and
    type_size.
    The fonts come with the worlds; any world that is installed will do.
    """
    for world in find_worlds().values():
        if world.evaluation_name is not None:
            return world.evaluation.contact_sheet(cells, **options)
    raise ValueError(f"a contact sheet needs the fonts of a world: {REMEDY}")


def can_write(text: str) -> bool:
    """Whether the fonts of a contact sheet have every character; a text that lacks one is left out.

    Raises:
        ValueError: no world with fonts is installed.
    """
    for world in find_worlds().values():
        if world.evaluation_name is not None:
            return world.evaluation.can_write(text)
    raise ValueError(f"a contact sheet needs the fonts of a world: {REMEDY}")
