"""Files and folders: complete or absent, one writer at a time, and nothing of others is touched."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crosslingual import folders
from crosslingual.files import MARK, append_line, hold_folder, replacing, write_text
from crosslingual.folders import check_folder, claim_folder, publish_folder, write_results


def put(**texts: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        for name, text in texts.items():
            (folder / f"{name}.txt").parent.mkdir(exist_ok=True)
            (folder / f"{name}.txt").write_text(text)

    return fill


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_is_published_with_its_mark_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "new/out"
    assert publish_folder(folder, put(one="1", two="2"), kind="adapter") == folder
    mark = json.loads((folder / MARK).read_text())
    assert (mark["format_version"], mark["kind"], [*mark["files"]]) == (
        1,
        "adapter",
        ["one.txt", "two.txt"],
    )
    publish_folder(folder, put(three="3"), kind="adapter")
    assert names_in(tmp_path / "new") == ["out", f"out/{MARK}", "out/three.txt"]


def no_exchange(first: Path, second: Path) -> bool:
    return False


def test_disks_that_cannot_exchange_folders_rename_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_exchange", no_exchange)
    publish_folder(tmp_path / "out", put(one="1"), kind="adapter")
    publish_folder(tmp_path / "out", put(two="2"), kind="adapter")
    assert names_in(tmp_path) == ["out", f"out/{MARK}", "out/two.txt"]


def test_a_writer_killed_between_two_renames_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    publish_folder(folder, put(one="1"), kind="adapter")
    folder.rename(tmp_path / ".out.0123456789abcdef.old")
    with pytest.raises(ValueError, match="not empty; choose another --output_dir or --overwrite"):
        claim_folder(folder, kind="adapter", overwrite=False)
    assert (folder / "one.txt").read_text() == "1" and os.listdir(tmp_path) == ["out"]


def states_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    states = {name: (folder / name).lstat() for name in names_in(folder)}
    return {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states.items()}


def spoil(folder: Path, fault: str) -> None:
    if fault == "a foreign file":
        (folder / "thesis.tex").write_text("years")
    elif fault == "a foreign file in a folder":
        (folder / "sub").mkdir()
        (folder / "sub/thesis.tex").write_text("years")
    elif fault == "a changed file":
        (folder / "one.txt").write_text("2")
    elif fault == "a link":
        (folder / "one.txt").rename(folder.parent / "kept.txt")
        (folder / "one.txt").symlink_to(folder.parent / "kept.txt")
    elif fault == "no mark":
        (folder / MARK).unlink()
    elif fault == "another kind":
        (folder / MARK).write_text((folder / MARK).read_text().replace("adapter", "shards"))
    elif fault == "a broken mark":
        (folder / MARK).write_text("{")
    else:
        (folder / MARK).write_text('{"format_version": 1, "kind": "adapter", "files": [1]}')


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("a foreign file", "out holds thesis.tex, which this program did not write; choose anoth"),
        ("a foreign file in a folder", "out holds sub/thesis.tex, which this program did not"),
        ("a changed file", "out/one.txt was changed since it was written; remove it, or"),
        ("a link", "out holds one.txt, which this program did not write"),
        ("no mark", "out holds one.txt and no crosslingual.json"),
        ("another kind", "out holds files of kind 'shards', not 'adapter'; choose another"),
        ("a broken mark", "crosslingual.json is broken"),
        ("a mark of another form", "crosslingual.json is broken"),
    ],
)
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, fault: str, words: str) -> None:
    folder = tmp_path / "out"
    publish_folder(folder, put(one="1"), kind="adapter")
    spoil(folder, fault)
    before = states_of(tmp_path)
    with pytest.raises(ValueError, match=words):
        publish_folder(folder, put(two="2"), kind="adapter")
    assert states_of(tmp_path) == before


def test_what_comes_into_a_folder_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    publish_folder(folder, put(one="1"), kind="adapter")

    def fill(temporary: Path) -> None:
        (folder / "notes.txt").write_text("mine")

    with pytest.raises(ValueError, match="was changed meanwhile"):
        publish_folder(folder, fill, kind="adapter")
    assert names_in(tmp_path) == ["out", f"out/{MARK}", "out/notes.txt", "out/one.txt"]


def test_files_and_siblings_of_others_are_left(tmp_path: Path) -> None:
    mine = ["out.partial", "out.old", ".out.partial", ".out.0123456789abcdef"]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years")
    for _ in range(2):
        publish_folder(tmp_path / "out", put(one="1"), kind="adapter")
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, "out"])
    assert all((tmp_path / name / "thesis.tex").is_file() for name in mine)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; choose another --output_dir"):
        publish_folder(tmp_path / "file", put(one="1"), kind="adapter")


@pytest.mark.parametrize(
    "name", ["x" * 250, "ä" * 120, "lr-1e-4-batch-32-steps-10000-languages-de-zh-ja-seed-0"]
)
def test_names_of_any_length_are_published_apart(tmp_path: Path, name: str) -> None:
    neighbour = tmp_path / f"{name[:-1]}1"
    neighbour.mkdir()
    neighbour.chmod(0o2770)
    with claim_folder(tmp_path / name, kind="adapter"):
        publish_folder(neighbour, put(one="1"), kind="adapter")
        publish_folder(tmp_path / name, put(two="2"), kind="adapter")
    assert sorted(os.listdir(tmp_path)) == sorted([name, neighbour.name])
    assert neighbour.stat().st_mode & 0o7777 == 0o2770, "a folder that was made beforehand"


def test_a_fill_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "one.txt").write_text("1")
        raise ValueError("line 4 is broken")

    with pytest.raises(ValueError, match="line 4"):
        publish_folder(tmp_path / "a/b/out", fill, kind="adapter")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_bytes(b"0"), "one.txt is not as it was written .its sha256 diff"),
        (lambda path: path.write_bytes(b"11"), "one.txt has 2 bytes, not 1"),
        (lambda path: path.unlink(), "one.txt is missing"),
        (lambda path: (path.parent / MARK).write_text('{"format_version": 2}'), "version is 2"),
        (
            lambda path: (path.parent / MARK).write_text(
                '{"format_version": 1, "kind": "x", "files": {"../a": {}}}'
            ),
            "it lists '../a'",
        ),
        (lambda path: (path.parent / MARK).unlink(), None),
        (lambda path: (path.parent / "README.md").write_text("my own words"), None),
        (lambda path: (path.parent / "more.txt").write_text("mine"), None),
    ],
)
def test_a_folder_is_checked_against_its_mark(
    tmp_path: Path, harm: Callable[[Path], object], words: str | None
) -> None:
    def fill(folder: Path) -> None:
        (folder / "one.txt").write_text("1")
        (folder / "README.md").write_text("card")

    folder = publish_folder(tmp_path / "out", fill, kind="adapter")
    harm(folder / "one.txt")
    if words is None:
        check_folder(folder)
    else:
        with pytest.raises(ValueError, match=words):
            check_folder(folder)


WRITER = """
import sys, time
from pathlib import Path
from crosslingual import folders
{patch}
def fill(folder):
    for number in range(20):
        (folder / f"{{number}}.txt").write_text("x" * 1000)
        time.sleep({pause})
print("begins", flush=True)
folders.publish_folder(sys.argv[1], fill, kind="adapter")
"""


def start(folder: Path, patch: str = "", pause: float = 0.0) -> subprocess.Popen:
    code = WRITER.format(patch=patch, pause=pause)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], **pipes)


DIE = "import os, signal; die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize(
    "patch",
    [
        "folders.mark_folder = die",
        "folders._put_in_place = die",
        "folders._exchange = lambda *_: False\nfolders.shutil.rmtree = die",
        "rename = Path.rename\nfolders._exchange = lambda *_: False\n"
        "Path.rename = lambda *a: (rename(*a), die())",
        "folders._remove = die",
        "folders.flush = die",
        "folders.json.dumps = die",
    ],
)
def test_a_killed_writer_leaves_the_old_or_the_new_and_can_be_repeated(
    tmp_path: Path, patch: str, has_old: bool
) -> None:
    folder = tmp_path / "out"
    if has_old:
        publish_folder(folder, put(one="1"), kind="adapter")
    writer = start(folder, DIE + patch)
    assert writer.wait(60) in (0, -signal.SIGKILL)
    if folder.exists():
        check_folder(folder)
        assert len(names_in(folder)) == (2 if (folder / "one.txt").exists() else 21)
    publish_folder(folder, put(two="2"), kind="adapter")
    assert names_in(folder) == [MARK, "two.txt"] and os.listdir(tmp_path) == ["out"]


def test_a_second_writer_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = start(folder, pause=10)
    assert first.stdout is not None and first.stdout.readline() == "begins\n"
    lock = tmp_path / ".out.lock"
    deadline = time.monotonic() + 30
    while not (lock.exists() and lock.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ValueError, match=f"out is being written by process {first.pid} on .*; wai"):
        publish_folder(folder, put(one="1"), kind="adapter")
    first.kill()
    first.wait()
    publish_folder(folder, put(one="1"), kind="adapter")
    assert os.listdir(tmp_path) == ["out"]


def test_a_held_folder_has_one_writer_and_no_lock_afterwards(tmp_path: Path) -> None:
    code = "import sys; from crosslingual.files import hold_folder; hold_folder(sys.argv[1])"
    other = [sys.executable, "-c", code, str(tmp_path / "a/run")]
    with hold_folder(tmp_path / "a/run"), hold_folder(tmp_path / "a/run"):
        refused = subprocess.run(other, capture_output=True, text=True)
        assert f"run is being written by process {os.getpid()} on " in refused.stderr
    assert os.listdir(tmp_path) == []
    assert subprocess.run(other).returncode == 0
    held = hold_folder(tmp_path / "a/run")
    (tmp_path / "a/run/metrics.jsonl").touch()
    held.close()
    assert names_in(tmp_path) == ["a", "a/run", "a/run/metrics.jsonl"]
    (tmp_path / "a/run/.lock").write_text("a cookery book")
    with pytest.raises(ValueError, match="is no lock of this program"):
        hold_folder(tmp_path / "a/run")
    assert (tmp_path / "a/run/.lock").read_text() == "a cookery book"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b": ', b'{"a": 1}\n'),
        (b'{"b": ', b""),
        (b'{"a": 1}\n{"b": 2}', b'{"a": 1}\n{"b": 2}\n'),
        (b'{"a": 1}\n\xff\xfe', b'{"a": 1}\n'),
    ],
)
def test_a_line_is_appended_after_whole_lines(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(before)
    append_line(path, '{"ü": 3}')
    assert path.read_bytes() == after + '{"ü": 3}\n'.encode()


@pytest.mark.parametrize("text", ['[\n {"a": 1}\n]', "my notes", "[1]\n", '{\n "a": 1\n}'])
def test_no_line_is_appended_to_what_holds_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="results.json holds something else than results"):
        append_line(path, "{}")
    assert path.read_text() == text


def test_a_full_disk_takes_a_part_of_a_line_back(small_disk: Path) -> None:
    path = small_disk / "results.jsonl"
    append_line(path, '{"a": 1}')
    free = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "ballast").write_bytes(bytes(free))
    with pytest.raises(OSError, match="a line of .*/results.jsonl was not written") as raised:
        append_line(path, json.dumps({"b": "x" * 9000}))
    assert raised.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_file_is_written_whole_beside_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["plan.json"])


def write_result(folder: Path, number: int, *, grid: bool = True) -> None:
    def text(path: Path) -> None:
        path.write_text(str(number))

    writers = {"table.md": text, "grid.png": text if grid else None}
    write_results(folder, "accuracy.json", {"number": number}, writers, ["number"])


def test_a_result_replaces_the_one_before_and_leaves_no_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_result(tmp_path, 1)
    write_result(tmp_path, 2, grid=False)
    assert names_in(tmp_path) == ["accuracy.json", "notes.txt", "table.md"]
    assert json.loads((tmp_path / "accuracy.json").read_text()) == {
        "number": 2,
        "files": ["table.md"],
    }
    (tmp_path / "grid.png").write_text("mine")
    with pytest.raises(ValueError, match="grid.png is there and of no earlier result; move it"):
        write_result(tmp_path, 3)
    assert (tmp_path / "grid.png").read_text() == "mine"
    assert (tmp_path / "table.md").read_text() == "2"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"theirs": 1}'])
def test_a_result_replaces_no_file_of_others(tmp_path: Path, text: str | None) -> None:
    name = "table.md" if text is None else "accuracy.json"
    (tmp_path / name).write_text(text or "mine")
    with pytest.raises(ValueError, match=f"{name} is there and of no earlier result"):
        write_result(tmp_path, 1)
    assert names_in(tmp_path) == [name] and (tmp_path / name).read_text() == (text or "mine")


def test_a_result_on_a_full_disk_leaves_the_one_before(small_disk: Path) -> None:
    write_result(small_disk, 1)
    writers = {"table.md": None, "grid.png": lambda path: path.write_bytes(bytes(2**21))}
    with pytest.raises(OSError, match="the disk is full: .*/grid.png was not written; make room"):
        write_results(small_disk, "accuracy.json", {"number": 2}, writers, ["number"])
    assert names_in(small_disk) == ["accuracy.json", "grid.png", "table.md"]
    assert (small_disk / "grid.png").read_text() == "1"
