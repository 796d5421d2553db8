"""Folders whose content is thrown away, also that of a process which was killed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosslingual.files import MARK, write_json
from crosslingual.folders import read_mark


@contextmanager
def scratch_folder(place: Path, kind: str) -> Iterator[Path]:
    """A folder `PLACE-...` that is removed at the end, after those of the same name and kind that a
    killed process left.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.iterdir():
        if old.name.startswith(f"{place.name}-") and (read_mark(old) or {}).get("kind") == kind:
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=f"{place.name}-", dir=place.parent) as folder:
        write_json(Path(folder) / MARK, {"format_version": 1, "kind": kind})
        yield Path(folder)
