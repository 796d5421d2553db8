"""Files that are complete or absent, whatever ends the process, and disks that are full."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_WRITERS = ("PytorchStreamWriter", "inline_container", "iostream error", "os error 28")
"""What the writers of torch and of safetensors say when the disk is full."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to write to; what was written is renamed to `path` at the
    end of the block, or removed if the block fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a small text file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)


def flush(*paths: Path) -> None:
    """Waits until files, or the names in folders, are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_full_disk(error: Exception) -> bool:
    """Whether an error of the system, of torch or of safetensors says that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(word in str(error) for word in _WRITERS)
