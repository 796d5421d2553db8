"""Folders that are complete or absent, whatever ends the process, and hold what their mark says.

The mark, `crosslingual.json`, gives a folder's kind, and the size and SHA-256 of every other file
in it. Nothing is replaced or removed that no mark lists.
"""

import contextlib
import ctypes
import errno
import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import pydantic

from crosslingual.files import (
    MARK,
    flush,
    hold_folder,
    naming_full_disk,
    read_fields,
    remove_empty,
    sha256_of,
    stem_of,
    temporary_sibling,
    write_json,
)

_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_live: set[Path] = set()
"""Temporary folders that this process fills."""


def _check_inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"it lists {name!r}")
    return name


FileName = Annotated[str, pydantic.AfterValidator(_check_inside)]
"""The type of a name in a list of a folder's files."""


class _File(pydantic.BaseModel):
    num_bytes: int
    sha256: str


def read_mark(folder: Path) -> dict[str, Any] | None:
    """A folder's mark, without `files` where it was never finished; None where it has no mark.

    Raises:
        ValueError: the mark is broken, or of a version that this program does not know.
    """
    fields = {"format_version": Literal[1], "kind": str, "files": dict[FileName, _File] | None}
    path = folder / MARK
    return read_fields(path, fields, "write the folder again") if path.is_file() else None


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
    with hold_folder(folder, folder.with_name(f"{stem_of(folder)}.lock")) as claim:
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
        before = _snapshot(folder)
        kept = "the earlier one is intact" if before else "nothing is left there"
        with _temporary_folder(folder, kind) as temporary:
            with naming_full_disk(f"{folder} was not written, {kept}; make room and try again"):
                known = fill(temporary) or {}
                mark_folder(temporary, kind, _snapshot(temporary).keys() - {MARK}, known)
            if _snapshot(folder) != before:
                raise ValueError(f"{folder} was changed meanwhile; choose another --output_dir")
            _put_in_place(temporary, folder)
        _remove(temporary, before)
    return folder


@contextlib.contextmanager
def _temporary_folder(path: Path, kind: str) -> Iterator[Path]:
    """A folder beside `path`, with a mark that lists nothing; removed if the block fails."""
    temporary = temporary_sibling(path)
    _live.add(temporary)
    try:
        temporary.mkdir()
        unfinished = {"format_version": 1, "kind": kind}
        (temporary / MARK).write_text(json.dumps(unfinished), encoding="utf-8")
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(temporary, _snapshot(temporary))
        raise
    finally:
        _live.remove(temporary)


def check_folder(folder: str | Path, names: Collection[str] | None = None) -> None:
    """Compares files with the mark of their folder, or of one up to two folders above, by size and
    SHA-256; a folder without a mark, which an earlier version or another program wrote, passes.

    It hashes a file once in a process. `names` chooses files; None takes all but README.md, which
    may be rewritten.
    """
    folder = Path(folder).resolve()
    for home in (folder, *folder.parents[:2]):
        for name, facts in ((read_mark(home) or {}).get("files") or {}).items():
            path = home / name
            if not path.is_relative_to(folder):
                continue
            name = path.relative_to(folder).as_posix()
            if name in names if names is not None else name != "README.md":
                _check_file(path, facts)


def _check_file(path: Path, facts: dict[str, Any]) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != facts["num_bytes"]:
        found = "is missing" if size is None else f"has {size} bytes, not {facts['num_bytes']}"
        raise ValueError(f"{path} {found}, against {MARK}; copy or write the folder again")
    if sha256_once(path) != facts["sha256"]:
        raise ValueError(
            f"{path} is not as it was written (its sha256 differs); copy or write the folder "
            f"again, or remove {MARK} if you changed the file yourself"
        )


def sha256_once(path: Path) -> str:
    """The SHA-256 of a file, which is read once in a process as long as it does not change."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)


def mark_folder(
    folder: Path,
    kind: str,
    names: Collection[str],
    known: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Flushes a folder and writes its mark, which lists files by name; `known` has the `num_bytes`
    and `sha256` of those that were hashed already.
    """
    files = dict(known or {})
    for name in sorted(names - files.keys()):
        path = folder / name
        files[name] = {"num_bytes": path.stat().st_size, "sha256": sha256_once(path)}
    flush(*folder.rglob("*"))
    files = {name: files[name] for name in sorted(files)}
    write_json(folder / MARK, {"format_version": 1, "kind": kind, "files": files})


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
    listed = mark.get("files") or () if mark else earlier(folder) if found and earlier else ()
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
    if folder.exists():
        shutil.copymode(folder, temporary)
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
    pattern = re.compile(rf"{re.escape(stem_of(folder))}\.[0-9a-f]{{16}}(\.old)?")
    for path in [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name)]:
        if path in _live:
            continue
        with contextlib.suppress(FileNotFoundError):
            if (path / MARK).stat().st_size == 0:  # ended between opening and writing it
                (path / MARK).unlink()
        remove_empty(path)
        mark = None if path.is_symlink() else read_mark(path)
        if mark and path.suffix == ".old" and not folder.exists():
            path.rename(folder)
        elif mark:
            found = _snapshot(path)
            ours = {*(found if mark.get("files") is None else mark["files"]), MARK}
            _remove(path, {name: state for name, state in found.items() if name in ours})


def _remove(folder: Path, known: dict[str, tuple[int, int, int]]) -> None:
    """Removes the files of a folder that are known, and what is empty then; the mark is the last,
    so that `_clear` goes on with what a killed process left.
    """
    found = _snapshot(folder)
    for name in sorted(found, key=lambda name: name == MARK):
        if known.get(name) == found[name]:
            (folder / name).unlink()
    places = [Path(place) for place, _, _ in os.walk(folder, topdown=False)]
    remove_empty(*places)


def check_results(
    folder: str | Path, listing: str, names: Collection[str], known_by: Collection[str]
) -> set[str]:
    """The names in a folder that an earlier result's JSON file `listing` says are its own.

    Args:
        folder: of a result, and of whatever else.
        listing: the name of the result's JSON file, which lists the others.
        names: of all files that a result can have.
        known_by: keys by which such a JSON file is known.

    Raises:
        ValueError: a file of one of these names is there that no earlier result lists.
    """
    own: set[str] = set()
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads((Path(folder) / listing).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.keys() >= set(known_by):
            own = {listing, *found.get("files", names)}
    for name in (listing, *names):
        if name not in own and os.path.lexists(Path(folder) / name):
            raise ValueError(
                f"{Path(folder) / name} is there and of no earlier result; move it, or choose "
                "another output"
            )
    return own


def hold_results(folder: str | Path, listing: str) -> contextlib.ExitStack:
    """Locks the files of one result, not the whole folder, as `hold_folder` does."""
    return hold_folder(folder, Path(folder).resolve() / f".{listing}.lock")


def write_results(
    folder: str | Path,
    listing: str,
    value: dict[str, Any],
    writers: Mapping[str, Callable[[Path], object] | None],
    known_by: Collection[str],
) -> None:
    """Writes the files of one result into a folder that may hold others, in place of those of the
    result before: no file of that one stays beside a file of this.

    `listing` names the JSON file that holds `value` and lists the others as its `files`. `writers`
    write a file, by name; one is None where this result lacks that file. `known_by` and errors are
    those of `check_results`.
    """
    folder = Path(folder)
    value["files"] = [name for name, write in writers.items() if write is not None]
    with hold_results(folder, listing):
        _clear(folder / listing)
        own = check_results(folder, listing, writers, known_by)
        with _temporary_folder(folder / listing, "results") as temporary:
            for name in value["files"]:
                with naming_full_disk(f"{folder / name} was not written; make room and try again"):
                    writers[name](temporary / name)
                    flush(temporary / name)
            write_json(temporary / listing, value)
            for name in sorted(own & writers.keys()):
                (folder / name).unlink(missing_ok=True)
            for name in (listing, *value["files"]):
                (temporary / name).rename(folder / name)
            flush(folder)
        _remove(temporary, _snapshot(temporary))
