"""Where the samples of a tar shard lie: one walk over its headers, then any sample by one read.

The walk is written out because `tarfile` ends without a word at a damaged header and takes four
times as long (46 against 10 microseconds a member, measured), which every rank would pay for every
shard. Nothing is ever extracted to disk.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from crosslingual.data.records import PICTURES, split_member

EXTENSIONS = (*PICTURES, "json", "txt")
"""Members that make a sample; others beside them are left alone."""

_BLOCK = 512
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (*b"123456",)  # links, devices, folders: a size in their header means nothing

ReadAt = Callable[[int, int], bytes]


class Member(NamedTuple):
    """A file in a tar: what follows the first dot of its name, and where its bytes are."""

    extension: str
    offset: int
    size: int


class Shard:
    """A tar shard, local or at any fsspec address, read at random.

    Neighbouring members whose names agree up to the first dot are one sample, as in WebDataset.

    Attributes:
        url: the path or address.
        samples: key and members of each sample, in order.
        faults: what was passed over, by member name: a foreign or unsafe member, a cut-off end.
    """

    def __init__(self, url: str):
        """Walks the headers.

        Raises:
            FileNotFoundError: no such shard.
            ValueError: the shard is compressed, so that nothing in it can be found at random.
        """
        self.url = url
        self.samples: list[tuple[str, list[Member]]] = []
        self.faults: dict[str, str] = {}
        filesystem, path = fsspec.core.url_to_fs(url)
        self._is_local = isinstance(filesystem, LocalFileSystem)
        if self._is_local:
            self._file = open(path, "rb", buffering=0)
            self._scan(self._read_local, os.fstat(self._file.fileno()).st_size)
        else:
            with filesystem.open(path, "rb") as file:

                def read_at(offset: int, size: int) -> bytes:
                    file.seek(offset)
                    return file.read(size)

                self._scan(read_at, file.size)

    def close(self) -> None:
        """Closes the file."""
        if self._is_local:
            self._file.close()

    def read(self, index: int) -> dict[str, Any]:
        """The sample as WebDataset has it: `__key__`, and the bytes of each member by extension.

        Raises:
            ValueError: the shard became shorter than it was.
        """
        key, members = self.samples[index]
        start, end = members[0].offset, members[-1].offset + members[-1].size
        if self._is_local:
            data = self._read_local(start, end - start)
        else:
            # asked anew, because a connection does not survive the fork into a worker
            filesystem, path = fsspec.core.url_to_fs(self.url)
            data = filesystem.cat_file(path, start=start, end=end)
        if len(data) < end - start:
            raise ValueError("the shard is cut off")
        sample: dict[str, Any] = {"__key__": key}
        for extension, offset, size in members:
            sample[extension] = data[offset - start : offset - start + size]
        return sample

    def _read_local(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def _scan(self, read_at: ReadAt, num_bytes: int) -> None:
        if read_at(0, 2) == b"\x1f\x8b":
            raise ValueError(f"{self.url} is compressed: samples are read at random, gunzip it")
        members: list[Member] = []
        last_key = None
        walk = _walk(read_at, num_bytes)
        while True:
            try:
                name, kind, offset, size = next(walk)
            except StopIteration:
                break
            except _DamagedError as damage:
                self.faults[damage.name or f"from byte {damage.offset} on"] = damage.reason
                if (split_member(damage.name) or (None,))[0] == last_key:
                    members.clear()
                break
            key, extension = split_member(name) or (None, "")
            fault = _member_fault(name, kind, key)
            if fault is not None:
                self.faults[name] = fault
            elif kind in _FILES:
                if key != last_key:
                    self._add(last_key, members)
                    last_key, members = key, []
                members.append(Member(extension, offset, size))
        self._add(last_key, members)

    def _add(self, key: str | None, members: list[Member]) -> None:
        known = [member for member in members if member.extension in EXTENSIONS]
        if key is None or not members:
            return
        if not known:
            self.faults[f"{key}.{members[0].extension}"] = "foreign member"
        elif len({member.extension for member in known}) < len(known):
            self.faults[key] = "two members of one name"
        else:
            self.samples.append((key, known))


def _member_fault(name: str, kind: bytes, key: str | None) -> str | None:
    if name.startswith("/") or ".." in name.split("/"):
        return "path points outside"
    if kind not in (*_FILES, tarfile.DIRTYPE):
        return "link or device"
    return "foreign member" if key is None and kind in _FILES else None


class _DamagedError(Exception):
    """A tar that cannot be followed further than `offset`."""

    def __init__(self, reason: str, offset: int, name: str = ""):
        super().__init__(reason)
        self.reason, self.offset, self.name = reason, offset, name


def _walk(read_at: ReadAt, num_bytes: int) -> Iterator[tuple[str, bytes, int, int]]:
    """Name, type, data offset and size of each member (POSIX.1-2001 ustar and pax, GNU names)."""
    offset = 0
    long: dict[str, str] = {}
    while (header := read_at(offset, _BLOCK)) != bytes(_BLOCK):
        if len(header) < _BLOCK:
            raise _DamagedError("cut off", offset)
        try:
            checksum, size = tarfile.nti(header[148:156]), tarfile.nti(header[124:136])
        except tarfile.HeaderError as error:
            raise _DamagedError("damaged header", offset) from error
        if checksum != sum(header) - sum(header[148:156]) + 8 * 32 or size < 0:
            raise _DamagedError("damaged header", offset)
        kind = header[156:157]
        size = int(long.get("size", size)) if kind[0] not in _WITHOUT_DATA else 0
        name = long.get("path") or _name(header)
        start, offset = offset + _BLOCK, offset + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if start + size > num_bytes:
            raise _DamagedError("cut off", start, name)
        if kind == tarfile.GNUTYPE_LONGNAME:
            long = {"path": _text(read_at(start, size))}
        elif kind == tarfile.XHDTYPE:
            try:
                long = _pax(read_at(start, size))
            except ValueError as error:
                raise _DamagedError("damaged header", start) from error
        elif kind not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            long = {}
            yield name, kind, start, size


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    is_ustar = header[257:263] == b"ustar\0"
    prefix = _text(header[345:500]) if is_ustar else ""
    return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])


def _pax(records: bytes) -> dict[str, str]:
    """Reads the `LENGTH NAME=VALUE` lines of a pax header."""
    values = {}
    while records:
        digits, _, _ = records.partition(b" ")
        length = int(digits)
        if length <= len(digits):
            raise ValueError("a pax line shorter than its own length")
        name, _, value = records[len(digits) + 1 : length].partition(b"=")
        values[name.decode()] = value.rstrip(b"\n").decode("utf-8", "surrogateescape")
        records = records[length:]
    return values
