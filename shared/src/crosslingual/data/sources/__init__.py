"""Sources: what the field has on disk, as records. One file a family; a new one is one file and a
line in `SOURCES`.

A source is a generator of `Record`s. Its arguments are settings of `crosslingual shards`, and their
docstrings its help; that verb refuses a setting that the chosen source does not take.
"""

from collections.abc import Callable, Iterator

from crosslingual.data.records import Record
from crosslingual.data.sources.coco import coco, karpathy
from crosslingual.data.sources.folder import folder
from crosslingual.data.sources.moses import moses
from crosslingual.data.sources.multi30k import multi30k
from crosslingual.data.sources.tarred import json_keys, webdataset
from crosslingual.worlds import find_worlds

Source = Callable[..., Iterator[Record]]

SOURCES: dict[str, Source] = {
    "folder": folder,
    "webdataset": webdataset,
    "json_keys": json_keys,
    "karpathy": karpathy,
    "coco": coco,
    "multi30k": multi30k,
    "moses": moses,
}


def find_sources() -> dict[str, Source]:
    """Sources by name: those of `SOURCES`, then those of installed worlds."""
    return SOURCES | {k: v for world in find_worlds().values() for k, v in world.sources.items()}
