"""Shards: written whole or not at all whatever fails, the same bytes each time, and read back."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import webdataset

from crosslingual.data.records import Record
from crosslingual.data.shards import (
    check_sizes,
    expand_shards,
    iter_shards,
    read_index,
    write_shards,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)


def make_records(count: int) -> list[Record]:
    return [
        Record(f"r{n:03d}", PNG, {"en": [f"cat {n}"], "de": ["Katze"]}, True) for n in range(count)
    ]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    native = Record("äé/" + "k" * 150, None, {"zh": ["灯笼"]}, False, "zh", {"motif": "lantern"})
    records = [*make_records(5), native]
    index = write_shards(records, tmp_path / "out", samples_per_shard=4)
    names = ["00000.tar", "00001.tar", "crosslingual.json", "index.json", "sizes.json"]
    assert names_in(tmp_path / "out") == names
    assert list(iter_shards(expand_shards(tmp_path / "out"))) == records
    assert index == read_index(tmp_path / "out")
    assert index["languages"] == {"de": 5, "en": 5, "zh": 1}
    counts = {name: index[f"num_{name}"] for name in ("samples", "images", "parallel", "culture")}
    assert counts == {"samples": 6, "images": 5, "parallel": 5, "culture": 1}
    for shard in index["shards"]:
        data = (tmp_path / "out" / shard["name"]).read_bytes()
        assert (shard["sha256"], shard["num_bytes"]) == (
            hashlib.sha256(data).hexdigest(),
            len(data),
        )
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    assert sizes == {"00000.tar": 4, "00001.tar": 2}
    check_sizes(tmp_path / "out", index)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_shards(make_records(3), tmp_path / "a")
    assert write_shards(make_records(3), tmp_path / "b") == first
    assert (tmp_path / "a/00000.tar").read_bytes() == (tmp_path / "b/00000.tar").read_bytes()


def test_webdataset_reads_our_shards(tmp_path: Path) -> None:
    write_shards(make_records(3), tmp_path / "out")
    path = str(tmp_path / "out/00000.tar")
    samples = list(webdataset.WebDataset(path, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["r000", "r001", "r002"]
    assert samples[1]["txt"] == "cat 1"
    assert samples[1]["json"]["captions"]["de"] == ["Katze"]


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="not empty; choose another --output_dir"):
        write_shards(make_records(1), tmp_path / "out")
    with pytest.raises(ValueError, match="out holds thesis.tex and no crosslingual.json"):
        write_shards(make_records(1), tmp_path / "out", overwrite=True)
    write_shards(make_records(1), tmp_path / "mine")
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(ValueError, match="mine holds notes.txt, which this program did not"):
        write_shards(make_records(1), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "out/thesis.tex").read_text() == "years"


def test_overwriting_leaves_no_shard_of_the_old_ones(tmp_path: Path) -> None:
    write_shards(make_records(5), tmp_path / "out", samples_per_shard=1)
    write_shards(make_records(2), tmp_path / "out", samples_per_shard=1, overwrite=True)
    assert len(expand_shards(tmp_path / "out")) == 2
    check_sizes(tmp_path / "out", read_index(tmp_path / "out"))


def test_shards_can_be_rewritten_from_themselves(tmp_path: Path) -> None:
    write_shards(make_records(4), tmp_path / "out")
    again = iter_shards(expand_shards(tmp_path / "out"))
    write_shards(again, tmp_path / "out", samples_per_shard=2, overwrite=True)
    assert list(iter_shards(expand_shards(tmp_path / "out"))) == make_records(4)


def test_keys_come_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key 'r000' comes twice"):
        write_shards(make_records(1) * 2, tmp_path / "out")


def test_no_records_are_no_shards(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples"):
        write_shards([], tmp_path / "out")
    with pytest.raises(ValueError, match="at least 1"):
        write_shards(make_records(1), tmp_path / "out", samples_per_shard=0)


def test_missing_pictures_stop_the_run_or_are_counted(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    absent = Record("gone", tmp_path / "gone.jpg", {"en": ["x"]}, True)
    wrong = Record("page", tmp_path / "page.jpg", {"en": ["x"]}, True)
    with pytest.raises(FileNotFoundError, match="'gone': picture .* is missing.*--allow_missing"):
        write_shards([absent], tmp_path / "out")
    with pytest.raises(ValueError, match="'page': .* is no JPEG"):
        write_shards([wrong], tmp_path / "out")
    index = write_shards([absent, wrong, *make_records(1)], tmp_path / "out", allow_missing=True)
    assert (index["num_missing"], index["num_samples"]) == (2, 1)


def test_shards_are_named_by_folder_file_braces_and_double_colons(tmp_path: Path) -> None:
    write_shards(make_records(3), tmp_path / "a", samples_per_shard=1)
    write_shards(make_records(1), tmp_path / "b")
    in_a = [str(tmp_path / f"a/0000{n}.tar") for n in range(3)]
    in_b = [str(tmp_path / "b/00000.tar")]
    assert expand_shards(tmp_path / "a") == in_a
    assert expand_shards(f"{tmp_path}/a/{{00000..00002}}.tar") == in_a
    assert expand_shards(f"{tmp_path}/a::{tmp_path}/b/00000.tar") == in_a + in_b


def test_shards_are_read_through_fsspec(tmp_path: Path) -> None:
    write_shards(make_records(3), tmp_path / "a", samples_per_shard=2)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "a"), "/bucket", recursive=True)
    try:
        paths = expand_shards("memory://bucket")
        assert [path.rpartition("/")[2] for path in paths] == ["00000.tar", "00001.tar"]
        assert list(iter_shards(paths)) == make_records(3)
        assert len(expand_shards("memory://bucket/{00000..00001}.tar")) == 2
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("spec", ["", "nowhere", "nowhere/{0..3}.tar", "memory://nowhere"])
def test_no_match_is_an_error_with_the_remedy(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="run `crosslingual shards` first"):
        expand_shards(spec)


def test_a_foreign_index_is_refused(tmp_path: Path) -> None:
    for text, message in [("{", "broken"), ('{"made_of": {}}', "no index of shards")]:
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_index(tmp_path)


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
    assert names_in(tmp_path) == ["old"]


def test_a_full_disk_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_shards(make_records(2), tmp_path / "out")

    def fill(self: webdataset.TarWriter, sample: dict) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(webdataset.TarWriter, "write", fill)
    with pytest.raises(
        OSError, match="the disk is full: .*/out was not written, the earlier one is"
    ):
        write_shards(make_records(9), tmp_path / "out", overwrite=True)
    names = ["00000.tar", "crosslingual.json", "index.json", "sizes.json"]
    assert names_in(tmp_path / "out") == names and names_in(tmp_path) == ["out"]
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
        assert run.stderr.splitlines()[-1].startswith("error: the disk is full: ")
        assert "Traceback" not in run.stderr
        assert names_in(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_shards_of_an_earlier_version_without_a_mark_can_be_overwritten(tmp_path: Path) -> None:
    write_shards(make_records(3), tmp_path / "out", samples_per_shard=1)
    (tmp_path / "out/crosslingual.json").unlink()
    write_shards(make_records(1), tmp_path / "out", overwrite=True)
    assert list(iter_shards(expand_shards(tmp_path / "out"))) == make_records(1)


def test_damaged_shards_can_be_overwritten(tmp_path: Path) -> None:
    write_shards(make_records(1), tmp_path / "out")
    (tmp_path / "out/00000.tar").write_bytes(b"damaged")
    write_shards(make_records(1), tmp_path / "out", overwrite=True)
    assert list(iter_shards(expand_shards(tmp_path / "out"))) == make_records(1)


def test_what_an_earlier_version_left_when_it_was_killed_is_no_folder_of_shards(
    tmp_path: Path,
) -> None:
    (tmp_path / "out/.partial").mkdir(parents=True)
    (tmp_path / "out/00007.tar").write_bytes(b"moved just before the kill")
    with pytest.raises(FileNotFoundError, match="never finished"):
        expand_shards(tmp_path / "out")


def killed_after(delay: float, write: Callable[[], object]) -> None:
    """Calls `write` in a process that the kernel ends after `delay` seconds."""
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, delay)
        write()
        os._exit(0)
    os.waitpid(process, 0)


@pytest.mark.parametrize("has_old", [False, True])
def test_shards_are_the_old_or_the_new_ones_whenever_the_writer_is_killed(
    tmp_path: Path, has_old: bool
) -> None:
    new = [dataclasses.replace(record, key=f"n{record.key}") for record in make_records(40)]
    for number in range(12):
        out = tmp_path / f"{number}/out"
        old = write_shards(make_records(3), out) if has_old else None
        options = {"samples_per_shard": 2, "overwrite": has_old}
        killed_after(0.002 * 1.5**number, lambda out=out, o=options: write_shards(new, out, **o))
        if out.exists():
            found = read_index(out)
            check_sizes(out, found)
            assert found == old or found["num_samples"] == 40
        again = write_shards(make_records(4), out, overwrite=out.exists())
        assert read_index(out) == again and names_in(out.parent) == ["out"]


def test_a_second_writer_of_shards_is_refused(tmp_path: Path) -> None:
    def records() -> Iterator[Record]:
        yield from make_records(1)
        process = os.fork()
        if process == 0:
            try:
                write_shards(make_records(1), tmp_path / "out")
            except ValueError as error:
                (tmp_path / "refusal").write_text(str(error))
            os._exit(0)
        os.waitpid(process, 0)

    write_shards(records(), tmp_path / "out")
    holder = f"out is being written by process {os.getpid()} on "
    assert holder in (tmp_path / "refusal").read_text()
