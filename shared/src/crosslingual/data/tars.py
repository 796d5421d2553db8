"""Tar files of samples: which ones a text names, and what they hold, undecoded."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from crosslingual.data.records import split_member

INDEX = "index.json"
PARTIAL = ".partial"  # where shards are written before they are renamed into their folder


def expand_shards(spec: str | Path) -> list[str]:
    """Lists the tar files that a text names, in order.

    Args:
        spec: a folder, a tar file, a brace range `{00000..00012}.tar`, an fsspec address of any
            of these, or several joined by `::`.

    Raises:
        FileNotFoundError: a part of it matches no shard.
    """
    import braceexpand

    paths = []
    for part in str(spec).split("::"):
        expanded = [part] if Path(part).exists() else list(braceexpand.braceexpand(part))
        for name in expanded:
            found = _list_remote(name) if "://" in name else _list_local(Path(name))
            if not found:
                raise FileNotFoundError(
                    f"no shard matches {name!r}; run `crosslingual shards` first"
                )
            paths += found
    return paths


def iter_samples(path: str) -> Iterator[dict[str, Any]]:
    """Reads a shard from front to back: `__key__` and the undecoded members by extension.

    Raises:
        ValueError: it is truncated, no tar file, or holds a member twice.
    """
    sample: dict[str, Any] = {}
    try:
        with _open(path) as stream, _open_tar(stream) as tar:
            for member in tar:
                parts = split_member(member.name) if member.isfile() else None
                if parts is None:
                    continue
                key, extension = parts
                if key != sample.get("__key__"):
                    if sample:
                        yield sample
                    sample = {"__key__": key}
                if extension in sample:
                    raise ValueError(f"{path} holds {member.name!r} twice; write it again")
                sample[extension] = tar.extractfile(member).read()
            if sample:
                yield sample
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or no tar file ({error})") from error


class _StrictHeader(tarfile.TarInfo):
    """A header whose damage is an error; `tarfile` would end the archive there without a word."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"damaged or cut off where a header should be: {error}"
            ) from error


def _open_tar(stream: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictHeader)


def _list_local(path: Path) -> list[str]:
    if not path.is_dir():
        return [str(path)] if path.is_file() else []
    if (path / PARTIAL).exists() and not (path / INDEX).exists():
        raise FileNotFoundError(f"{path} was never finished; run `crosslingual shards` again")
    return sorted(str(tar) for tar in path.glob("*.tar"))


def _list_remote(address: str) -> list[str]:
    if address.endswith((".tar", ".tar.gz")):
        return [address]
    import fsspec

    files, path = fsspec.core.url_to_fs(address)
    return sorted(files.unstrip_protocol(name) for name in files.glob(f"{path.rstrip('/')}/*.tar"))


def _open(path: str) -> IO[bytes]:
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    return fsspec.open(path, "rb").open()
