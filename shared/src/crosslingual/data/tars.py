"""Tar shards: which ones an address names, and their samples, from the one walk over a tar.

webdataset writes our tars and iterates over tars of the same layout. We read them ourselves because
exact order and resume need a sample by its number, and damage must be counted and reported:

- webdataset 1.0.2 reads from front to back and ends at a damaged header without an error, as
  `tarfile` under it does. It no longer contains `wids`, its indexed reader.
- wids 0.1.11 checks no header. Its fast reader (3 microseconds a member) cuts names at 100 bytes
  and knows no pax headers; its other one is `tarfile` with an index that it unpickles from a file
  beside the shard. It downloads whole shards where we read ranges, and prints.

So the walk is `tarfile`'s, with headers that raise: 20 microseconds a member, where iterating with
webdataset takes 28 (both measured on 3 kB members). Members are never extracted to disk.
"""

import contextlib
import itertools
import operator
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from crosslingual.data.addresses import at_address
from crosslingual.data.records import NOT_READ, PICTURES, split_member
from crosslingual.data.text import printable

INDEX = "index.json"
PIPE = "pipe:"  # webdataset's word for a command whose output is a tar
PARTIAL = ".partial"  # where shards are written before they are renamed into their folder
EXTENSIONS = (*PICTURES, *NOT_READ, "json", "txt")
"""Members that make a sample; others are left alone."""

MAX_SHARDS = 1_000_000  # that an address may name
CUT_OFF, DAMAGED = "cut off", "damaged header"
FOREIGN, LINK = "foreign member", "link or device"
MAX_PICTURE, MAX_TEXT = 256 << 20, 8 << 20
"""Bytes that a picture, and a text or its JSON, may have in a tar; no more are allocated."""

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.SOLARIS_XHDTYPE,
)
_MAX_LONG_HEADER = 1 << 20  # bytes; `tarfile` reads such a header whole


def expand_shards(spec: str | Path) -> list[str]:
    """Lists the tar files that a text names, in order.

    It is a folder, a tar file, a brace range `{00000..00012}.tar`, an fsspec address of any of
    these, `pipe:` and a command whose output is a tar, or several joined by `::`.

    Raises:
        FileNotFoundError: a part of it matches no shard.
    """
    import braceexpand

    paths = []
    for part in str(spec).split("::"):
        expanded = [part]
        if not Path(part).exists():
            ranges = re.findall(r"\{(\d+)\.\.(\d+)", part)
            is_huge = any(abs(int(b) - int(a)) >= MAX_SHARDS for a, b in ranges)
            names = [] if is_huge else braceexpand.braceexpand(part)
            expanded = list(itertools.islice(names, MAX_SHARDS + 1))
            if is_huge or len(expanded) > MAX_SHARDS:
                raise ValueError(f"{part!r} names more than {MAX_SHARDS} shards")
        for name in expanded:
            if not (found := _list(name)):
                message = f"no shard matches {name!r}; run `crosslingual shards` first"
                raise FileNotFoundError(message)
            paths += found
    return paths


def iter_samples(
    url: str, faults: dict[str, str] | None = None, others: Counter[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Reads a shard from front to back: `__key__`, `__url__` and the undecoded members by
    extension; the samples are those that the loader finds.

    A shard at an address or a compressed one (`.tar.gz`) is first copied into a temporary file: one
    stream instead of a request for each sample. With `faults`, what is passed over goes there:
    reason by name. Without, foreign members and links are passed over, and others are errors.
    Members of samples with unknown extensions are counted in `others`.

    Raises:
        ValueError: it is truncated, no tar file, or holds an unsafe path or a member twice.
    """
    with _local(url) as plain, contextlib.closing(Shard(plain)) as shard:
        if others is not None:
            others.update(shard.others)
        for name, reason in shard.faults.items():
            if faults is not None:
                faults[f"{url}: {name}"] = reason
            elif reason in (CUT_OFF, DAMAGED):
                raise ValueError(f"{url} is truncated or no tar file ({name}: {reason})")
            elif reason not in (FOREIGN, LINK):
                raise ValueError(f"{url}: {name!r}: {reason}; write the shard again")
        for index in range(len(shard.samples)):
            yield shard.read(index) | {"__url__": url}


class Member(NamedTuple):
    """A file in a tar: what follows the first dot of its name, and where its bytes are."""

    extension: str
    offset: int
    size: int


class Shard:
    """A tar shard, local or at any fsspec address, read at random.

    Neighbouring members whose names agree up to the first dot are one sample, as in WebDataset.
    Where that leaves no member with a known extension, names are split at their last dot:
    `shot v1.0.jpg` and `shot v1.0.txt` are the sample `shot v1_0`. A sample is a fault, not less of
    a sample, where one of its members with a known extension cannot be read.

    Attributes:
        url: the path or address.
        samples: key and members of each sample, in order.
        faults: reason by name of what was passed over: a foreign or unsafe member, a cut-off end.
        others: how many members of samples have which unknown extension, such as `seg.png`.
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
        self.others: Counter[str] = Counter()
        if url.startswith(PIPE):
            raise ValueError(
                f"{url} is a stream, and samples are read at random: write shards of it first, "
                "with `crosslingual shards --source webdataset --input` and the same words"
            )
        with at_address(url) as (filesystem, path):
            self._is_local = isinstance(filesystem, LocalFileSystem)
            if self._is_local:
                self._file = open(path, "rb", buffering=0)
                self._scan(self._file, os.fstat(self._file.fileno()).st_size)
                return
            with filesystem.open(path, "rb") as file:
                try:
                    file.seek(max(file.size - 1, 0))
                    file.read(1)
                except (ValueError, TypeError) as error:  # a stream has no size
                    raise ValueError(
                        f"the server of {url} reads no ranges of files: copy the shards to this "
                        "disk, or write them there with `crosslingual shards --source webdataset`"
                    ) from error
                self._scan(file, file.size)

    def close(self) -> None:
        """Closes the file."""
        if self._is_local:
            self._file.close()

    def read(self, index: int, extensions: Sequence[str] | None = None) -> dict[str, Any]:
        """The sample as WebDataset has it: `__key__`, and the bytes of each member by extension.

        With `extensions`, only these members are read.

        Raises:
            ValueError: the shard became shorter than it was, or its server reads no ranges.
        """
        key, members = self.samples[index]
        sample: dict[str, Any] = {"__key__": key}
        start, end = members[0].offset, members[-1].offset + members[-1].size
        if extensions is not None or end - start > MAX_PICTURE:  # others may lie between them
            for extension, offset, size in members:
                if extensions is None or extension in extensions:
                    sample[extension] = self._bytes(offset, offset + size)
            return sample
        data = self._bytes(start, end)
        for extension, offset, size in members:
            sample[extension] = data[offset - start : offset - start + size]
        return sample

    def _bytes(self, start: int, end: int) -> bytes:
        if self._is_local:
            data = os.pread(self._file.fileno(), end - start, start)
        else:
            with at_address(self.url) as (filesystem, path):
                data = filesystem.cat_file(path, start=start, end=end)
        if len(data) < end - start:
            raise ValueError("the shard is cut off")
        if len(data) > end - start:
            raise ValueError("the server reads no ranges of files: copy the shards to this disk")
        return data

    def _scan(self, file: IO[bytes], num_bytes: int) -> None:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(f"{self.url} is compressed: samples are read at random, gunzip it")
        file.seek(0)
        found: list[tuple[str, Member]] = []
        incomplete: set[str] = set()  # samples that would lose a part in silence
        for name, member in _walk(file, num_bytes):
            key, extension = split_member(name) or ("", "")
            fault = member if isinstance(member, str) else _member_fault(member, extension)
            if fault is not None:
                self.faults[printable(name)] = fault
                stem, _, last = name.removeprefix("./").rpartition(".")
                incomplete |= {key} if fault == CUT_OFF or extension in EXTENSIONS else set()
                incomplete |= {stem} if last.lower() in EXTENSIONS else set()
            elif not member.isdir():
                found.append((key, Member(extension, member.offset_data, member.size)))
        for key, group in itertools.groupby(found, key=operator.itemgetter(0)):
            members = [member for _, member in group]
            if self._add(key, members, key in incomplete):
                continue
            parts: dict[str, list[Member]] = {}
            for member in members:
                stem, extension = f"{key}.{member.extension}".rsplit(".", 1)
                parts.setdefault(stem, []).append(member._replace(extension=extension))
            for stem, part in parts.items():
                if not self._add(re.sub(r"[.](?=[^/]*$)", "_", stem), part, stem in incomplete):
                    self.faults[printable(f"{stem}.{part[0].extension}")] = FOREIGN

    def _add(self, key: str, members: list[Member], is_incomplete: bool) -> bool:
        """Adds a sample unless it is a fault; False where no member has a known extension."""
        known = [member for member in members if member.extension in EXTENSIONS]
        counts = Counter(member.extension for member in known)
        if len(counts) < len(known):
            twice = counts.most_common(1)[0][0]
            self.faults[printable(f"{key}.{twice}")] = "two members of one name"
        elif known and not is_incomplete:
            self.samples.append((key, known))
        self.others.update(m.extension for m in members if known and m not in known)
        return bool(known)


def _member_fault(member: tarfile.TarInfo, extension: str) -> str | None:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "path points outside"
    if member.issparse() or not (member.isdir() or member.type in _FILES):
        return LINK
    last = extension.rpartition(".")[2]
    limit = MAX_TEXT if last in ("json", "txt") else MAX_PICTURE
    if last in EXTENSIONS and member.size > limit:
        return f"oversized: {member.size} bytes, at most {limit} are read"
    return None if extension or member.isdir() else FOREIGN


class _StrictHeader(tarfile.TarInfo):
    """A header whose damage is an error; `tarfile` would end the archive there without a word."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        member = super().frombuf(buf, encoding, errors)
        is_long = member.type in _LONG_HEADERS and member.size > _MAX_LONG_HEADER
        if member.size < 0 or is_long:
            raise tarfile.InvalidHeaderError("a size that no header has")
        return member

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(CUT_OFF) from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(DAMAGED) from error
        if member.size < 0 or tar.offset <= member.offset:  # by a pax header
            raise tarfile.ReadError(DAMAGED)
        return member


def _walk(file: IO[bytes], num_bytes: int) -> Iterator[tuple[str, tarfile.TarInfo | str]]:
    """Each member by name; at the end, where damage ended the walk, the reason in its place."""
    offset = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_StrictHeader, encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # or they would all stay in memory
                end = tar.offset if member.issparse() else member.offset_data + member.size
                if end > num_bytes:
                    yield member.name, CUT_OFF
                    return
                yield member.name, member
                offset = tar.offset
    except tarfile.ReadError as error:
        yield f"from byte {offset} on", DAMAGED if str(error) == DAMAGED else CUT_OFF
    # all that 90,000 tars with changed headers made `tarfile` raise besides; a chain of a thousand
    # long headers, each of the next, makes it recurse
    except (ValueError, IndexError, OverflowError, RecursionError):
        yield f"from byte {offset} on", DAMAGED


@contextlib.contextmanager
def _local(url: str) -> Iterator[str]:
    """The path of a shard that is local and not compressed: its own, or a temporary file's."""
    if not url.startswith(PIPE) and "://" not in url:
        if fsspec.utils.infer_compression(url) is None:
            yield url
            return
    with tempfile.NamedTemporaryFile(suffix=".tar") as plain:
        try:
            if url.startswith(PIPE):
                from webdataset.gopen import gopen  # which imports torch

                with gopen(url, "rb") as stream:
                    shutil.copyfileobj(stream, plain)
            else:
                with at_address(url), fsspec.open(url, "rb", compression="infer") as packed:
                    shutil.copyfileobj(packed, plain)
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{url} is truncated or no tar file ({error})") from error
        plain.flush()
        yield plain.name


def _list(address: str) -> list[str]:
    is_remote = "://" in address
    if address.startswith(PIPE) or (
        is_remote and address.partition("?")[0].endswith((".tar", ".tar.gz"))
    ):
        return [address]  # asking for each of a thousand would take minutes
    with at_address(address) as (files, path):
        if not is_remote and files.isfile(path):
            return [address]
        is_cut = files.exists(f"{path}/{PARTIAL}") and not files.exists(f"{path}/{INDEX}")
        found = sorted(files.glob(f"{path.rstrip('/')}/*.tar"))
    if is_cut:
        raise FileNotFoundError(f"{address} was never finished; run `crosslingual shards` again")
    return [files.unstrip_protocol(name) for name in found] if is_remote else found
