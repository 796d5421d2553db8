"""Files that are complete or absent, whatever ends the process; locks of folders; full disks."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

MARK = "crosslingual.json"
LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_WRITERS = "PytorchStreamWriter|inline_container|iostream error|os error 2[78]"
"""What the writers of torch and of safetensors say when the disk is full."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to write to; what was written is flushed to the disk and
    renamed to `path` at the end of the block, or removed if the block fails.
    """
    temporary = temporary_sibling(path)
    try:
        with naming_full_disk(f"{path} was not written; make room and try again"):
            yield temporary
            flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a small text file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a small JSON file, complete or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def refuse_input(output: Path, *inputs: Path) -> None:
    """Refuses an output that is one of the files it is made of, which it would replace."""
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise ValueError(f"{output} is an input, which would be lost; choose another --output")


def append_line(path: Path, text: str) -> None:
    """Appends one line of JSON, whole or not at all.

    The half line of a process that was killed while it wrote is cut off first. Writers wait for
    each other.

    Raises:
        OSError: the disk is full; the file is as before.
        ValueError: the file holds something else than lines of JSON objects.
    """
    with path.open("a+b", buffering=0) as file:
        with contextlib.suppress(OSError):  # on a disk without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        _check_lines(file, path)
        line = text.encode() + b"\n"
        with naming_full_disk(f"a line of {path} was not written; make room and try again"):
            end = _end_of_lines(file)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "only a part could be written")
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise


def _check_lines(file: IO[bytes], path: Path) -> None:
    """Refuses a file whose first line is no JSON object, nor the half of one."""
    file.seek(0)
    first = file.readline()
    is_ours = not first.strip() or (first.startswith(b"{") and not first.endswith(b"\n"))
    with contextlib.suppress(ValueError, RecursionError):
        is_ours = is_ours or isinstance(json.loads(first), dict)
    if not is_ours:
        raise ValueError(
            f"{path} holds something else than results, which are lines of JSON; move it, or "
            "choose another --output_dir"
        )


def _end_of_lines(file: IO[bytes]) -> int:
    """Where the next line of a file starts. A last line without its end is cut off, but gets its
    end where it is complete, as editors leave it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read(1) in (b"", b"\n"):
        return size
    file.seek(0)
    lines, _, last = file.read().rpartition(b"\n")
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        os.ftruncate(file.fileno(), size - len(last))
        return size - len(last)
    file.write(b"\n")
    return size + 1


def stem_of(path: Path) -> str:
    """The start of the names beside `path` that a process writes to first."""
    name = path.name
    if len(os.fsencode(name)) > 200:  # with what follows, a name may have 255 bytes
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}"


def temporary_sibling(path: Path) -> Path:
    """A name beside `path` that nobody else can have."""
    return path.with_name(f"{stem_of(path)}.{secrets.token_hex(8)}")


def flush(*paths: Path) -> None:
    """Waits until files, or the names in folders, are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def naming_full_disk(message: str) -> Iterator[None]:
    """Turns what the system and the libraries raise on a full disk into one OSError that ends with
    `message`.
    """
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise OSError(errno.ENOSPC, f"the disk is full: {message}") from error


def is_full_disk(error: Exception) -> bool:
    """Whether an error of the system, of torch or of safetensors says that the disk is full, or a
    file too large for it.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return re.search(_WRITERS, str(error)) is not None


def hold_folder(folder: str | Path, lock: Path | None = None) -> contextlib.ExitStack:
    """Locks a folder that is filled in place, from now until the result is closed or the process
    ends, however it ends. A process may hold a folder several times; its children do not hold it.

    Args:
        folder: to lock; made if it does not exist, and removed again if it stays empty.
        lock: the file that is locked, where it does not lie in the folder.

    Raises:
        ValueError: another process writes into the folder.
    """
    folder = Path(folder).resolve()
    path = lock or folder / LOCK
    key, release = (os.getpid(), path), contextlib.ExitStack()
    made = [place for place in (path.parent, *path.parent.parents) if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    release.callback(remove_empty, *made)
    with release:
        file, count = _held.get(key) or (_lock(path, folder), 0)
        _held[key] = file, count + 1
        release.callback(_release, key)
        return release.pop_all()


_held: dict[tuple[int, Path], tuple[IO[str], int]] = {}
"""Lock files that a process holds, and how many times."""


def _lock(path: Path, folder: Path) -> IO[str]:
    """A record lock: processes that outlive this one do not inherit it, as they would `flock`."""
    while True:
        file = path.open("a+", encoding="utf-8", errors="replace")
        file.seek(0)
        holder = file.read(200).strip()
        if holder and not holder.startswith("process "):
            file.close()
            raise ValueError(f"{path} is no lock of this program; choose another --output_dir")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                message = f"{folder} is being written by {holder or 'another process'}; wait for it"
                raise ValueError(f"{message}, or choose another --output_dir") from error
            print(f"{folder} is on a disk without locks: start one writer", file=sys.stderr)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # its last holder removed it meanwhile
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _release(key: tuple[int, Path]) -> None:
    if key[0] != os.getpid():
        return  # a child that its parent forked
    file, count = _held.pop(key)
    if count > 1:
        _held[key] = file, count - 1
        return
    key[1].unlink(missing_ok=True)
    file.close()


def remove_empty(*folders: Path) -> None:
    """Removes those folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed processes from a folder that this one holds and that is
    this program's own.
    """
    for path in folder.iterdir():
        if re.fullmatch(r"\..+\.[0-9a-f]{16}", path.name) and path.is_file():
            path.unlink()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file: a GB takes 0.8 s of one core at 2.5 GHz."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_fields(path: Path, fields: Mapping[str, Any], remedy: str) -> dict[str, Any]:
    """Reads a JSON object of this program, whose values must be there and of their types: `fields`
    are hints by name, as pydantic takes them, and what may be None may be absent. `remedy` says in
    the error what to do about a broken file.

    Raises:
        ValueError: it is no JSON object, or a value is missing or of another type, by name.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken ({str(error)[:200]}); {remedy}") from error
    return check_fields(values, fields, path, remedy)


def check_fields(
    values: Any, fields: Mapping[str, Any], path: str | Path, remedy: str
) -> dict[str, Any]:
    """`read_fields` of values that were read already."""
    import pydantic

    if not isinstance(values, dict):
        raise ValueError(f"{path} is broken (it holds no object); {remedy}")
    for name, hint in fields.items():
        try:
            pydantic.TypeAdapter(hint).validate_python(values.get(name), strict=True)
        except pydantic.ValidationError as error:
            found = repr(values[name])[:60] if name in values else "missing"
            reason = error.errors()[0].get("ctx", {}).get("error", f"its {name} is {found}")
            raise ValueError(f"{path} is broken ({reason}); {remedy}") from error
    return values
