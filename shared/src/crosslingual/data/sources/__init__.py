"""Sources: what the field has on disk, as records. One file a family; a new one is one file and a
line in `FAMILIES`.

A source is a generator of `Record`s. Its arguments are settings of `crosslingual shards`, and their
docstrings its help; that verb refuses a setting that the chosen source does not take.
"""

import pkgutil
from collections.abc import Callable, Iterator, Mapping

from crosslingual.data.records import Record
from crosslingual.worlds import find_worlds

FAMILIES = {
    "folder": "crosslingual.data.sources.folder:folder",
    "webdataset": "crosslingual.data.sources.tarred:webdataset",
    "json_keys": "crosslingual.data.sources.tarred:json_keys",
    "karpathy": "crosslingual.data.sources.coco:karpathy",
    "coco": "crosslingual.data.sources.coco:coco",
    "multi30k": "crosslingual.data.sources.multi30k:multi30k",
    "moses": "crosslingual.data.sources.moses:moses",
}
"""Name to `module:function`."""


class Sources(Mapping[str, Callable[..., Iterator[Record]]]):
    """Sources by name: those of `FAMILIES`, then those of installed worlds.

    A family's file is imported when its source is asked for; worlds are imported when a name that
    is no family's, or the list of names, is asked for.
    """

    def __getitem__(self, name: str) -> Callable[..., Iterator[Record]]:
        """The generator of that name."""
        return pkgutil.resolve_name(FAMILIES[name]) if name in FAMILIES else _of_worlds()[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter([*FAMILIES, *_of_worlds()])

    def __len__(self) -> int:
        """How many there are."""
        return len(FAMILIES) + len(_of_worlds())


SOURCES = Sources()


def _of_worlds() -> dict[str, Callable[..., Iterator[Record]]]:
    worlds = find_worlds().values()
    return {name: source for world in worlds for name, source in world.sources.items()}
