"""Shards under faults: a failing source, a full disk, a kill, truncated and foreign tar files."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdataset

from crosslingual.data.records import Record
from crosslingual.data.shards import (
    check_sizes,
    expand_shards,
    iter_samples,
    iter_shards,
    write_shards,
)
from crosslingual_worlds.testing.shards import write_tar

PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)


def make_records(count: int) -> list[Record]:
    return [
        Record(f"r{n:03d}", PNG, {"en": [f"cat {n}"], "de": ["Katze"]}, True) for n in range(count)
    ]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_source_that_fails_leaves_nothing_and_harms_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Record]:
        yield from make_records(3)
        raise ValueError("line 4 is broken")

    with pytest.raises(ValueError, match="line 4"):
        write_shards(failing(), tmp_path / "new", samples_per_shard=1)
    assert not (tmp_path / "new").exists()
    index = write_shards(make_records(2), tmp_path / "old")
    with pytest.raises(ValueError, match="line 4"):
        write_shards(failing(), tmp_path / "old", overwrite=True)
    check_sizes(tmp_path / "old", index)
    assert ".partial" not in names_in(tmp_path / "old")


def test_a_full_disk_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_shards(make_records(2), tmp_path / "out")

    def fill(self: webdataset.TarWriter, sample: dict) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(webdataset.TarWriter, "write", fill)
    with pytest.raises(OSError, match="No space left"):
        write_shards(make_records(9), tmp_path / "out", overwrite=True)
    assert names_in(tmp_path / "out") == ["00000.tar", "index.json", "sizes.json"]
    check_sizes(tmp_path / "out", index)


def test_a_truly_full_disk_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        words = "shards --source world --languages en --num_samples 200 --output_dir".split()
        command = [sys.executable, "-m", "crosslingual.cli.main", *words, str(disk / "out")]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 2
        assert "No space left on device" in run.stderr.splitlines()[-1]
        assert "Traceback" not in run.stderr
        assert names_in(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_killed_write_is_no_folder_of_shards_and_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "out/.partial").mkdir(parents=True)
    (tmp_path / "out/.partial/00000.tar").write_bytes(b"half")
    (tmp_path / "out/00007.tar").write_bytes(b"moved just before the kill")
    with pytest.raises(FileNotFoundError, match="never finished"):
        expand_shards(tmp_path / "out")
    (tmp_path / "out/00007.tar").unlink()
    write_shards(make_records(1), tmp_path / "out")
    assert list(iter_shards(expand_shards(tmp_path / "out"))) == make_records(1)


@pytest.mark.parametrize("kept", [600, 1024, 5000, 5632, 20_000])
def test_a_truncated_tar_is_an_error_wherever_it_ends(kept: int, tmp_path: Path) -> None:
    index = write_shards(make_records(9), tmp_path / "out")
    path = tmp_path / "out/00000.tar"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="00000.tar is truncated or no tar"):
        list(iter_samples(str(path)))
    with pytest.raises(ValueError, match=f"has {kept} bytes, its index says"):
        check_sizes(tmp_path / "out", index)


def test_a_damaged_header_and_a_foreign_file_are_errors(tmp_path: Path) -> None:
    write_shards(make_records(9), tmp_path / "out")
    path = tmp_path / "out/00000.tar"
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
