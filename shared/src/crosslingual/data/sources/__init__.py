"""Sources: what the field has on disk, as records. One file a family; a new one is a line here.

A source is a generator of `Record`s. Its keyword arguments are settings of `crosslingual shards`,
`input_path` being `--input`; what it does not take is refused there.
"""

from collections.abc import Callable, Iterator

from crosslingual.data.records import Record
from crosslingual.data.sources.coco import coco
from crosslingual.data.sources.folder import folder
from crosslingual.data.sources.karpathy import karpathy
from crosslingual.data.sources.moses import moses
from crosslingual.data.sources.multi30k import multi30k
from crosslingual.data.sources.tarred import json_keys, webdataset
from crosslingual.worlds import find_worlds

SOURCES: dict[str, Callable[..., Iterator[Record]]] = {
    "folder": folder,
    "webdataset": webdataset,
    "json_keys": json_keys,
    "karpathy": karpathy,
    "coco": coco,
    "multi30k": multi30k,
    "moses": moses,
}
for _world in find_worlds().values():
    SOURCES.update(_world.sources)
