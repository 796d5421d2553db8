"""Tar shards: members are found where the library finds them, and damage is never silent."""

import io
import tarfile
from pathlib import Path

import pytest

from crosslingual.data.tars import Shard

PICTURE = b"picture" * 90


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar of members in the given order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str) -> list[tuple[str, bytes]]:
    """A sample of two members."""
    return [(f"{key}.png", PICTURE), (f"{key}.json", b"{}")]


def test_links_and_folders_in_a_tar(tmp_path: Path) -> None:
    """A link is refused, since it may point anywhere; a folder is no fault."""
    path = write_tar(tmp_path / "0.tar", [m for n in range(4) for m in sample(f"{n:04d}")])
    with tarfile.open(path, "a") as tar:
        for kind, name in [(tarfile.SYMTYPE, "0009.png"), (tarfile.DIRTYPE, "folder")]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    shard = Shard(str(path))
    assert shard.faults == {"0009.png": "link or device"} and len(shard.samples) == 4


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_where_tarfile_finds_them(tmp_path: Path, form: int) -> None:
    """Long and non-ASCII names in every dialect; the same names and bytes as the library's."""
    names = ["a.png", "a.json", f"{'d' * 60}/{'f' * 60}.txt"]
    if form != tarfile.USTAR_FORMAT:
        names += [f"{'d' * 120}/{'é' * 90}.txt", "ключ.txt"]
    with tarfile.open(tmp_path / "0.tar", "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * number
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    shard = Shard(str(tmp_path / "0.tar"))
    found = {}
    for index in range(len(shard.samples)):
        read = shard.read(index)
        key = read.pop("__key__")
        found |= {f"{key}.{extension}": data for extension, data in read.items()}
    assert shard.faults == {}
    assert found == {name: bytes([n]) * 700 * n for n, name in enumerate(names)}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_truncated_tar_yields_what_is_whole_and_says_so(tmp_path: Path, cut: int) -> None:
    """Wherever it is cut, no member comes in part, and the cut is a fault."""
    path = write_tar(tmp_path / "0.tar", [m for n in range(4) for m in sample(f"{n:04d}")])
    shard = Shard(str(path))
    whole = [shard.read(index).items() for index in range(4)]
    end = shard.samples[-1][1][-1].offset + 512
    path.write_bytes(path.read_bytes()[: end * cut // 12])
    cut_off = Shard(str(path))
    assert len(cut_off.samples) <= 4 * cut / 12 + 1
    assert all(cut_off.read(i).items() <= whole[i] for i in range(len(cut_off.samples)))
    assert len(cut_off.faults) == 1 and "cut off" in str(cut_off.faults)
    with pytest.raises(ValueError, match="the shard is cut off"):
        shard.read(3)
