"""Tar shards: members are found where the library finds them, and damage is never silent."""

import gzip
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosslingual.data.records import Record
from crosslingual.data.shards import check_sizes, iter_shards, write_shards
from crosslingual.data.tars import Shard, iter_samples
from crosslingual_worlds.testing.shards import samples, write_tar

PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)


def test_links_and_folders_in_a_tar(tmp_path: Path) -> None:
    """A link is refused, since it may point anywhere; a folder is no fault."""
    path = write_tar(tmp_path / "0.tar", samples(4))
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
    members = [(name, bytes([number]) * 700 * number) for number, name in enumerate(names)]
    write_tar(tmp_path / "0.tar", members, form)
    shard = Shard(str(tmp_path / "0.tar"))
    found = {}
    for index in range(len(shard.samples)):
        read = shard.read(index)
        key = read.pop("__key__")
        found |= {f"{key}.{extension}": data for extension, data in read.items()}
    assert shard.faults == {}
    assert found == dict(members)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_truncated_tar_yields_what_is_whole_and_says_so(tmp_path: Path, cut: int) -> None:
    """Wherever it is cut, no member comes in part, and the cut is a fault."""
    path = write_tar(tmp_path / "0.tar", samples(4))
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


def test_a_compressed_shard_is_read_from_front_to_back_and_never_at_random(tmp_path: Path) -> None:
    """By the ending of its name, as fsspec tells it; cut off, it is an error."""
    path = write_tar(tmp_path / "0.tar", samples(4))
    packed = tmp_path / "0.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    unpacked = [sample | {"__url__": str(packed)} for sample in iter_samples(str(path))]
    assert list(iter_samples(str(packed))) == unpacked
    with pytest.raises(ValueError, match="is compressed"):
        Shard(str(packed))
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(ValueError, match="0.tar.gz is truncated or no tar file"):
        list(iter_samples(str(packed)))


def sparse_header() -> bytes:
    """GNU's sparse file whose map goes on in a block that is cut off."""
    header = bytearray(header_of("0.png", 0, tarfile.GNUTYPE_SPARSE))
    header[482] = 1
    return seal(header)


def backwards_header() -> bytes:
    """A pax header that says a negative size of the member after it."""
    pax = b"17 size=-1048576\n"
    head = header_of("pax", len(pax), tarfile.XHDTYPE) + pax.ljust(512, b"\0")
    return head + header_of("0.png", 0)


def header_of(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header as tarfile writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def seal(header: bytearray) -> bytes:
    """A header with the checksum that it should have."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (header_of("0.png", -512), "damaged header"),
        (header_of("0.png", 1 << 50), "cut off"),
        (header_of("pax", 1 << 40, tarfile.XHDTYPE), "damaged header"),
        (header_of("link", 1 << 30, tarfile.GNUTYPE_LONGLINK), "damaged header"),
        (header_of("name", 1, tarfile.GNUTYPE_LONGNAME) * 3000, "damaged header"),
        (backwards_header(), "damaged header"),
        (sparse_header(), "damaged header"),
    ],
)
def test_sizes_that_lie_end_the_walk_at_once(tmp_path: Path, header: bytes, reason: str) -> None:
    """Neither a loop backwards, nor a terabyte read, nor an error that only `tarfile` knows."""
    path = write_tar(tmp_path / "0.tar", samples(2))
    last = Shard(str(path)).samples[-1][1][-1]
    path.write_bytes(path.read_bytes()[: last.offset + 512] + header)
    shard = Shard(str(path))
    assert len(shard.samples) == 2
    assert len(shard.faults) == 1 and reason in str(shard.faults)


def sparse_file(name: str, size: int) -> tarfile.TarInfo:
    """A pax header of a sparse file without a byte of its own."""
    info = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    info.pax_headers = {"GNU.sparse.map": f"{size},0", "GNU.sparse.size": str(size)}
    info.pax_headers |= {"GNU.sparse.numblocks": "1", "GNU.sparse.name": name}
    return info


@pytest.mark.parametrize("name", ["5.png", "5.json", "shot v1.0.png"])
def test_members_that_say_gigabytes_are_one_samples_fault_and_are_never_read(
    tmp_path: Path, name: str
) -> None:
    """A sparse member, and one whose bytes are a hole of the shard itself; others are read."""
    key, _, extension = name.rpartition(".")
    path = tmp_path / "0.tar"
    for info in (sparse_file(name, 10 << 30), tarfile.TarInfo(name)):
        write_tar(path, samples(2))
        end = Shard(str(path)).samples[-1][1][-1].offset + 512
        with path.open("r+b") as file:
            file.truncate(end)
            file.seek(end)
            if not info.pax_headers:
                info.size = 10 << 30
            file.write(info.tobuf(tarfile.PAX_FORMAT))
            file.seek(info.size, 1)
            other = tarfile.TarInfo(f"{key}.txt")  # of the same sample
            file.write(other.tobuf() + tarfile.TarInfo("6.txt").tobuf() + bytes(1024))
        tracemalloc.start()
        shard = Shard(str(path))
        keys = [shard.read(index)["__key__"] for index in range(len(shard.samples))]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert keys == ["0000", "0001", "6"] and peak < 1 << 22
        assert list(shard.faults) == [name] and shard.faults[name].startswith(("link", "oversized"))


def test_names_with_dots_are_split_where_samples_are(tmp_path: Path) -> None:
    """At the first dot, as WebDataset does; at the last where that leaves no known extension."""
    names = ["cat.jpg", "cat.seg.png", "cat.txt", "shot v1.0.jpg", "shot v1.0.txt"]
    names += [
        "shot v1.1.txt",
        "shot v1.1.x.y",
        "shot v1.1.jpg",
        "a.b.c.PNG",
        "d.e/f.g.json",
        ".hidden.jpg",
        "x.cls",
    ]
    write_tar(tmp_path / "0.tar", [(name, b"") for name in names])
    shard = Shard(str(tmp_path / "0.tar"))
    found = {key: [member.extension for member in members] for key, members in shard.samples}
    assert found == {
        "cat": ["jpg", "txt"],
        "shot v1_0": ["jpg", "txt"],
        "shot v1_1": ["txt", "jpg"],
        "a_b_c": ["png"],
        "d.e/f_g": ["json"],
    }
    assert set(shard.faults) == {".hidden.jpg", "x.cls", "shot v1.1.x.y"}


def nine_records() -> Iterator[Record]:
    return (Record(f"r{n:03d}", PNG, {"en": ["cat"]}, True) for n in range(9))


@pytest.mark.parametrize("kept", [600, 1024, 5000, 5632, 20_000])
def test_a_truncated_tar_is_an_error_wherever_it_ends(kept: int, tmp_path: Path) -> None:
    index = write_shards(nine_records(), tmp_path)
    path = tmp_path / "00000.tar"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="00000.tar is truncated or no tar"):
        list(iter_samples(str(path)))
    with pytest.raises(ValueError, match=f"has {kept} bytes, its index says"):
        check_sizes(tmp_path, index)


def test_a_damaged_header_and_a_foreign_file_are_errors(tmp_path: Path) -> None:
    write_shards(nine_records(), tmp_path)
    path = tmp_path / "00000.tar"
    for data in (path.read_bytes().replace(b"r003.txt", b"r003.tzt"), b"<html>" * 1000, b""):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="00000.tar is truncated or no tar"):
            list(iter_samples(str(path)))


def test_foreign_members_are_passed_over_and_bad_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, [("README", b"x"), ("a.txt", b"x"), (".DS_Store", b""), ("a.png", PNG)])
    assert [record.key for record in iter_shards([str(path)])] == ["a"]
    write_tar(path, [("../../etc/cron.txt", b"x")])
    with pytest.raises(ValueError, match="x.tar: '../../etc/cron.txt': path points outside"):
        list(iter_shards([str(path)]))
    write_tar(path, [("a.png", PNG)])
    with pytest.raises(ValueError, match="no caption.* holds png"):
        list(iter_shards([str(path)]))
    write_tar(path, [("a.txt", b""), ("a.txt", b"")])
    with pytest.raises(ValueError, match="'a.txt': two members of one name"):
        list(iter_shards([str(path)]))
