"""The shards of a suite, written once for all arms."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from crosslingual.files import write_text
from crosslingual_benchmarks.compare.commands import Command
from crosslingual_benchmarks.compare.suite import Suite, Values, fill


def write_data(suite: Suite, folder: Path, words: Values, say: Callable[[str], None]) -> None:
    """Writes the suite's shards to `folder/data` where they are missing.

    `words` are the values of the words in braces.

    Raises:
        ValueError: shards are there that were made otherwise, a folder holds something else, or
            the world has no such source or option.
    """
    from crosslingual.data.shards import write_shards
    from crosslingual.worlds import find_world

    for number, (name, options) in enumerate(suite.data.items()):
        place = folder / "data" / name
        options = {"seed": suite.seed + number, **fill(options, words)}
        options["seed"] = int(options["seed"])  # {seed} is a text
        told = json.dumps([suite.world, options], sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()
        begun = _mark(folder, name)
        if (place / "index.json").is_file():
            if not begun.is_file():
                say(f"data: {name} was there before, and is used as it is")
            elif begun.read_text() != key:
                raise ValueError(
                    f"{place} was written for a suite with other data; remove it, or choose "
                    "another --output_dir"
                )
            continue
        say(f"data: {name}")
        sources = find_world(suite.world).sources
        source = options.pop("source", next(iter(sources)))
        if source not in sources:
            raise ValueError(f"data {name}: no source {source!r}; there are {', '.join(sources)}")
        try:
            records = sources[source](**options)
        except TypeError as error:
            raise ValueError(f"data {name}: {error}") from error
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(begun, key)
        write_shards(records, place, overwrite=None)


def data_keys(suite: Suite, folder: Path, command: Command) -> list[str]:
    """Keys of the data that a command reads: it runs again where they have changed."""
    marks = {f"{folder / 'data' / name}/": _mark(folder, name) for name in suite.data}
    read = [f"{value}/" for value in command.inputs]
    return [
        mark.read_text()
        for place, mark in marks.items()
        if mark.is_file() and any(value.startswith(place) for value in read)
    ]


def _mark(folder: Path, name: str) -> Path:
    return folder / "data" / f"{name}.begun"
