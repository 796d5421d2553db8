"""Folders of models that are complete or absent: written beside and renamed."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

MARKS = ("config.json", "model_index.json")  # one of them tells a model's folder from others


def write_folder(folder: str | Path, fill: Callable[[Path], None]) -> Path:
    """Writes a model's folder beside its place and renames it.

    Args:
        folder: replaced if it holds a model already.
        fill: writes the files into the folder that it is given.

    Raises:
        ValueError: the folder holds something else.
        OSError: the disk is full; an earlier model is intact.
    """
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()) and not any((folder / m).is_file() for m in MARKS):
        raise ValueError(f"{folder} holds something other than a model; choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        is_full = "os error 28" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        if not is_full:
            raise
        kept = "the earlier one is intact" if folder.exists() else "nothing is left there"
        message = f"the disk is full: {folder} was not written, {kept}; make room and export again"
        raise OSError(errno.ENOSPC, message) from error
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder
