"""Files and folders that are complete or absent, whatever ends the process; locks; full disks.

A folder that is published whole holds a mark, `crosslingual.json`: its kind, and the size and
SHA-256 of every other file in it. Nothing is replaced or removed that no mark lists.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

MARK = "crosslingual.json"
LOCK = ".lock"
_MARK_VERSION = 1
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_WRITERS = ("PytorchStreamWriter", "inline_container", "iostream error", "os error 28")
"""What the writers of torch and of safetensors say when the disk is full."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to write to; what was written is flushed to the disk and
    renamed to `path` at the end of the block, or removed if the block fails.
    """
    temporary = _sibling(path)
    try:
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


def append_line(path: Path, text: str) -> None:
    """Appends one line of JSON, whole or not at all.

    The half line of a process that was killed while it wrote is cut off first. Writers wait for
    each other.

    Raises:
        OSError: the disk is full; the file is as before.
    """
    with path.open("a+b", buffering=0) as file:
        with contextlib.suppress(OSError):  # on a disk without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        end = _end_of_lines(file)
        line = text.encode() + b"\n"
        try:
            written = file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"{path}: only a part of a line could be written")
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


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


def hold_folder(folder: str | Path) -> contextlib.ExitStack:
    """Locks a folder that is filled in place, from now until the result is closed or the process
    ends, however it ends. A process may hold a folder several times; its children do not hold it.

    Raises:
        ValueError: another process writes into the folder.
    """
    folder = Path(folder).resolve()
    return _hold(folder / LOCK, folder)


_held: dict[tuple[int, Path], tuple[IO[str], int]] = {}
"""Lock files that a process holds, and how many times."""


def _hold(path: Path, folder: Path) -> contextlib.ExitStack:
    key, release = (os.getpid(), path), contextlib.ExitStack()
    made = [place for place in (path.parent, *path.parent.parents) if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    release.callback(_remove_empty, made)
    with release:
        file, count = _held.get(key) or (_lock(path, folder), 0)
        _held[key] = file, count + 1
        release.callback(_release, key)
        return release.pop_all()


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


def _remove_empty(folders: Collection[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def claim_folder(
    folder: str | Path,
    *,
    kind: str,
    overwrite: bool | None = None,
    earlier: Callable[[Path], Collection[str]] | None = None,
) -> contextlib.ExitStack:
    """Locks a folder that `publish_folder` will write, so that a long verb refuses at its start
    what that would refuse at its end; the arguments and errors are the same.
    """
    folder = Path(folder).resolve()
    if folder.is_mount() or Path.cwd().is_relative_to(folder):
        raise ValueError(f"{folder} itself cannot be replaced; choose a folder in it")
    path = folder.with_name(f".{_stem(folder)}.lock")
    with _hold(path, folder) as claim:
        if _held[os.getpid(), path][1] == 1:
            _clear(folder)
        _check_replaceable(folder, kind, overwrite, earlier)
        return claim.pop_all()


def publish_folder(
    folder: str | Path,
    fill: Callable[[Path], Mapping[str, dict[str, Any]] | None],
    *,
    kind: str,
    overwrite: bool | None = None,
    earlier: Callable[[Path], Collection[str]] | None = None,
) -> Path:
    """Fills a temporary folder by `fill`, marks it and puts it in place in one atomic step. An old
    folder of the same kind is intact until then.

    Args:
        folder: new or empty, or an old folder of this kind.
        fill: writes the files into the folder that it is given; it may return `num_bytes` and
            `sha256` of those that it hashed already, by name.
        kind: what the mark calls the folder.
        overwrite: a verb's --overwrite: True replaces what this program wrote even if it is
            damaged, False refuses whatever is there. None, for verbs without it, replaces an old
            folder if its files are as they were written.
        earlier: the names of all files that an earlier version, which left no mark, wrote into a
            folder; empty where it wrote none.

    Returns:
        The folder's absolute path.

    Raises:
        ValueError: another process writes the folder, or it holds something else, or an old file
            was changed since it was written; nothing is touched.
        OSError: the disk is full; an old folder is intact.
    """
    folder = Path(folder).resolve()
    with claim_folder(folder, kind=kind, overwrite=overwrite, earlier=earlier):
        before, temporary = _snapshot(folder), _sibling(folder)
        temporary.mkdir()
        try:
            unfinished = {"format_version": _MARK_VERSION, "kind": kind}
            (temporary / MARK).write_text(json.dumps(unfinished), encoding="utf-8")
            _mark(temporary, kind, fill(temporary) or {})
            if _snapshot(folder) != before:
                raise ValueError(f"{folder} was changed meanwhile; choose another --output_dir")
            _put_in_place(temporary, folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, Exception) or not is_full_disk(error):
                raise
            kept = "the earlier one is intact" if before else "nothing is left there"
            message = f"the disk is full: {folder} was not written, {kept}; make room and try again"
            raise OSError(errno.ENOSPC, message) from error
        _remove(temporary, before)
    return folder


def check_folder(folder: str | Path, names: Collection[str] | None = None) -> None:
    """Compares the files of a folder with its mark, by size and SHA-256; a folder without a mark,
    which an earlier version or another program wrote, passes.

    Args:
        folder: to check.
        names: of the files to check; all but README.md, which may be rewritten, if None.

    Raises:
        ValueError: a file is missing or not what was written, by name.
    """
    folder = Path(folder)
    mark = read_mark(folder)
    if mark is not None and "files" not in mark:
        raise ValueError(f"{folder} was never finished; write it again")
    for name, facts in mark["files"].items() if mark else ():
        if name in names if names is not None else name != "README.md":
            _check_file(folder / name, facts)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """A folder's mark, without `files` where it was never finished; None where it has no mark.

    Raises:
        ValueError: the mark is broken, or of a version that this program does not know.
    """
    path = folder / MARK
    if not path.is_file():
        return None
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        if mark["format_version"] != _MARK_VERSION:
            raise ValueError(f"its version is {mark['format_version']}, not {_MARK_VERSION}")
        for name, facts in mark.get("files", {}).items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"it lists {name!r}")
            int(facts["num_bytes"]), str(facts["sha256"])
        str(mark["kind"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is broken ({error!s:.80}); write the folder again") from error
    return mark


def _check_file(path: Path, facts: dict[str, Any]) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != facts["num_bytes"]:
        found = "is missing" if size is None else f"has {size} bytes, not {facts['num_bytes']}"
        raise ValueError(f"{path} {found}, against {MARK}; copy or write the folder again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
            raise ValueError(
                f"{path} is not as it was written (its sha256 differs); copy or write the folder "
                f"again, or remove {MARK} if you changed the file yourself"
            )


def _mark(folder: Path, kind: str, known: Mapping[str, dict[str, Any]]) -> None:
    files = {}
    for name in sorted(_snapshot(folder).keys() - {MARK}):
        if name in known:
            files[name] = known[name]
            continue
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = {"num_bytes": file.tell(), "sha256": digest}
    flush(*folder.rglob("*"))
    write_json(folder / MARK, {"format_version": _MARK_VERSION, "kind": kind, "files": files})


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and link in a folder, by name, with what writing it would change."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in files + [name for name in folders if os.path.islink(f"{place}/{name}")]:
            path = Path(place, name)
            state = path.lstat()
            name = path.relative_to(folder).as_posix()
            found[name] = state.st_mode, state.st_size, state.st_mtime_ns
    return found


def _check_replaceable(
    folder: Path,
    kind: str,
    overwrite: bool | None,
    earlier: Callable[[Path], Collection[str]] | None,
) -> None:
    """Raises a ValueError that names a file in a folder which this program did not write."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --output_dir")
    found = _snapshot(folder)
    if found and overwrite is False:
        raise ValueError(f"{folder} is not empty; choose another --output_dir or --overwrite")
    mark = read_mark(folder)
    listed = mark.get("files", ()) if mark else earlier(folder) if found and earlier else ()
    if found and not mark and not listed:
        raise ValueError(
            f"{folder} holds {min(found)} and no {MARK}, by which this program knows its folders: "
            "remove it if an earlier version wrote it, or choose another --output_dir"
        )
    if mark and mark["kind"] != kind:
        what = f"{folder} holds files of kind {mark['kind']!r}, not {kind!r}"
        raise ValueError(f"{what}; choose another --output_dir")
    for name in sorted(found.keys() - {MARK}):
        if name not in listed or (folder / name).is_symlink():
            what = f"{folder} holds {name}, which this program did not write"
            raise ValueError(f"{what}; choose another --output_dir")
        if mark and not overwrite:
            try:
                _check_file(folder / name, listed[name])
            except ValueError as error:
                what = f"{folder / name} was changed since it was written"
                raise ValueError(f"{what}; remove it, or choose another --output_dir") from error


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Renames a folder, or exchanges two in one step; the old one then has the other's name."""
    flush(temporary, folder.parent)
    if not folder.exists() or not any(folder.iterdir()):
        temporary.rename(folder)
    elif not _exchange(temporary, folder):
        old = temporary.with_name(temporary.name + ".old")
        folder.rename(old)  # `_clear` renames it back if this process ends here
        temporary.rename(folder)
        old.rename(temporary)
    flush(folder.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two names by Linux's renameat2; False where the disk or the system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if call(-100, os.fsencode(first), -100, os.fsencode(second), 2) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def _clear(folder: Path) -> None:
    """Removes, or renames back, what a writer of this folder left when it was killed."""
    pattern = re.compile(rf"\.{re.escape(_stem(folder))}\.[0-9a-f]{{16}}(\.old)?")
    for path in [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name)]:
        _remove_empty([path])
        mark = None if path.is_symlink() else read_mark(path)
        if mark and path.suffix == ".old" and not folder.exists():
            path.rename(folder)
        elif mark and "files" not in mark:
            shutil.rmtree(path)
        elif mark:
            ours = {*mark["files"], MARK}
            _remove(path, {name: s for name, s in _snapshot(path).items() if name in ours})


def _remove(folder: Path, known: dict[str, tuple[int, int, int]]) -> None:
    """Removes the files of a folder that are known, the mark last, and what is empty then."""
    found = _snapshot(folder)
    for name in sorted(found, key=lambda name: name == MARK):
        if known.get(name) == found[name]:
            (folder / name).unlink()
    places = [Path(place) for place, _, _ in os.walk(folder, topdown=False)]
    _remove_empty(places)


def _stem(path: Path) -> str:
    return path.name[:50]  # with the token, a name may have 255 bytes


def _sibling(path: Path) -> Path:
    return path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}")


def read_fields(path: Path, fields: Mapping[str, Any], remedy: str) -> dict[str, Any]:
    """Reads a JSON object of this program, whose values must be there and of their types.

    Args:
        path: of the file.
        fields: type hints by name; a hint that allows None may be absent.
        remedy: what to do about a broken file, for the error.

    Raises:
        ValueError: it is no JSON object, or a value is missing or of another type, by name.
    """
    import pydantic

    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
        for name, hint in fields.items():
            try:
                pydantic.TypeAdapter(hint).validate_python(values.get(name), strict=True)
            except pydantic.ValidationError as error:
                found = repr(values[name])[:60] if name in values else "missing"
                raise ValueError(f"its {name} is {found}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken ({str(error)[:200]}); {remedy}") from error
    return values
