"""The command `crosslingual`: its verbs, what they print, and errors in one line."""

import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from crosslingual.cli.main import main
from crosslingual.data import sources
from crosslingual.data.shards import expand_shards, iter_shards, read_index
from crosslingual.data.sources import find_sources
from crosslingual_worlds.testing.shards import Members, picture, samples, write_tar


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def make_folder(folder: Path) -> None:
    folder.mkdir()
    lines = []
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.jpg")
        captions = {"en": [f"cat {number}"], "zh": ["猫"]}
        lines.append(json.dumps({"file_name": f"{number}.jpg", "captions": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def test_world_to_shards_to_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = "--source world --split val --num_samples 5 --num_motif_samples 1 --languages en de"
    code, printed, _ = run(capsys, "shards", *words.split(), "--output_dir", out)
    summary = (
        "6 samples in 1 shards, 6 with a picture, 5 parallel, 1 of a culture; captions: de 6, en 5"
    )
    assert (code, printed) == (0, f"wrote {out}: {summary}\n")
    code, printed, _ = run(capsys, "inspect", out)
    lines = printed.splitlines()
    assert (code, lines[0]) == (0, f"{out}: {summary}")
    assert "json:captions 6" in lines[1] and "png 6" in lines[1] and "txt 5" in lines[1]
    assert lines[2] == "first sample val-0000000:"
    assert lines[-1] == (
        f"index.json agrees with the SHA-256 of each shard; sha256 {read_index(out)['sha256']}"
    )


def test_a_users_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "in")
    words = ["shards", "--source", "folder", "--input", tmp_path / "in", "--output_dir"]
    assert run(capsys, *words, tmp_path / "a", "--num_samples", 2)[0] == 0
    first, second = iter_shards(expand_shards(tmp_path / "a"))
    assert (first.key, first.parallel, second.captions["en"]) == ("0", True, ["cat 1"])
    assert first.image == (tmp_path / "in/0.jpg").read_bytes()
    assert run(capsys, *words, tmp_path / "b", "--culture", "zh")[0] == 0
    records = list(iter_shards(expand_shards(tmp_path / "b")))
    assert {(record.culture, record.parallel) for record in records} == {("zh", False)}
    (tmp_path / "in/1.jpg").unlink()
    code, _, error = run(capsys, *words, tmp_path / "c")
    assert (code, error.count("\n")) == (2, 1)
    assert "1.jpg is missing" in error and "--allow_missing" in error
    code, printed, _ = run(capsys, *words, tmp_path / "c", "--allow_missing")
    assert code == 0 and "left out: 1 samples" in printed


def test_inspect_of_mis_keyed_shards_says_what_they_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pea.tar"
    data = json.dumps({"caption_zh": "猫", "width": 64}).encode()
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("0.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    code, printed, error = run(capsys, "inspect", path)
    lines = printed.splitlines()
    assert (code, error) == (2, f"error: no sample of {path} can be used\n")
    assert (code, lines[1]) == (2, "members and keys: json:caption_zh 1, json:width 1")
    assert lines[2] == "unreadable: 1 samples"
    assert lines[3].startswith(f"  {path}: 0: no caption; JSON keys found: caption_zh, width;")
    _, printed, _ = run(capsys, "inspect", path, "--key_map", "caption_zh=zh")
    assert "captions: zh 1" in printed


def float_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("F", (8, 8)).save(buffer, "TIFF")
    return buffer.getvalue()


def hostile_samples() -> dict[str, tuple[str, Members]]:
    """Samples that cannot be used, by key: what is said of each, and their members."""
    jpg, deep = b"\xff\xd8\xff", b'{"captions": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    return {
        "empty": ("no caption", [("empty.png", picture()), ("empty.txt", b" ")]),
        "half": ("half a character", [("half.json", rb'{"captions": {"en": "\ud83d"}}')]),
        "deep": ("nested too deeply", [("deep.json", deep)]),
        "list": ("must be a text", [("list.json", b'{"captions": {"en": {"a": 1}}}')]),
        "html": ("no JPEG, PNG, WebP", [("html.jpg", b"<html>"), ("html.txt", b"x")]),
        "two": ("rename one", [("two.jpg", jpg), ("two.png", picture()), ("two.txt", b"x")]),
        "phone": ("heic pictures are not read", [("phone.heic", b"x"), ("phone.txt", b"x")]),
        "utf16": ("UTF-16", [("utf16.txt", "a cat".encode("utf-16"))]),
        "float": ("picture of mode F", [("float.tif", float_picture()), ("float.txt", b"x")]),
        "up": ("points outside", [("../up.txt", b"x")]),
    }


@pytest.mark.parametrize("key", hostile_samples())
def test_a_sample_that_cannot_be_used_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """By repacking and by inspect, which say the same of it; where nothing is left both fail."""
    reason, members = hostile_samples()[key]
    tar, words = tmp_path / "0.tar", ["shards", "--source", "webdataset", "--input"]
    write_tar(tar, [*samples(2), *members, *samples(4)[4:]])
    code, printed, _ = run(capsys, *words, tar, "--output_dir", tmp_path / "out")
    assert code == 0 and f"wrote {tmp_path / 'out'}: 4 samples" in printed
    assert re.search(f"left out: 1 samples\n  .*{key}.*: .*{reason}", printed)
    index = read_index(tmp_path / "out")
    assert (index["num_samples"], index["num_images"], index["num_missing"]) == (4, 4, 1)
    code, printed, _ = run(capsys, "inspect", tar)
    assert code == 0 and f"{tar}: 4 samples" in printed
    assert re.search(f"unreadable: 1 samples\n  .*{key}.*: .*{reason}", printed)
    write_tar(tar, members)
    for line in (["inspect", tar], [*words, tar, "--output_dir", tmp_path / "none"]):
        code, _, error = run(capsys, *line)
        assert (code, error.count("\n")) == (2, 1)
    assert not (tmp_path / "none").exists()


def test_what_is_damaged_of_a_shard_is_kept_by_a_flag_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = write_tar(tmp_path / "0.tar", samples(4))
    tar.write_bytes(tar.read_bytes()[:6000])
    words = ["shards", "--source", "webdataset", "--input", tar, "--output_dir", tmp_path / "out"]
    code, _, error = run(capsys, *words)
    assert code == 2 and "cut off: it is truncated or no tar file" in error
    assert not (tmp_path / "out").exists()
    code, printed, _ = run(capsys, *words, "--allow_missing")
    assert code == 0 and "cut off" in printed
    code, printed, error = run(capsys, "inspect", tar)
    assert code == 2 and "cut off" in error and f"{tar}: 3 samples" in printed


def test_samples_whose_keys_agree_are_both_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("cat.jpg", "cat.png"):
        (folder / name).write_bytes(picture())
    lines = [{"file_name": name, "text": "a cat"} for name in ("cat.jpg", "cat.png")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = (write_tar(tmp_path / f"{name}.tar", samples(1)) for name in "ab")
    for words, names in [
        (["--source", "folder", "--input", folder], (folder / "cat.jpg", folder / "cat.png")),
        (["--source", "webdataset", "--input", f"{first}::{second}"], (first, second)),
    ]:
        code, _, error = run(capsys, "shards", *words, "--output_dir", tmp_path / "out")
        assert code == 2 and f"comes twice, of {names[0]} and of {names[1]}: rename" in error


def test_inspect_notices_shards_that_differ_from_their_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "in")
    words = ["--input", tmp_path / "in", "--output_dir", tmp_path / "out"]
    run(capsys, "shards", "--source", "folder", *words)
    tar = tmp_path / "out/00000.tar"
    data = bytearray(tar.read_bytes())
    data[512] ^= 1  # in the first sample's JSON or picture
    tar.write_bytes(data)
    code, _, error = run(capsys, "inspect", tmp_path / "out")
    assert code == 2 and "00000.tar is damaged" in error
    _, printed, _ = run(capsys, "inspect", tmp_path / "out", "--verify_data", "false")
    assert "agrees with the shards' sizes" in printed
    tar.write_bytes(data + bytes(512))
    code, _, error = run(capsys, "inspect", tmp_path / "out")
    assert code == 2 and "copy or write it again" in error


def test_moses_to_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for language in ("en", "th"):
        (tmp_path / f"o.en-th.{language}.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    words = ["--input", tmp_path / "o.en-th", "--output_dir", tmp_path / "out"]
    code, printed, _ = run(capsys, "shards", "--source", "moses", *words)
    assert code == 0 and "2 samples in 1 shards, 0 with a picture, 2 parallel" in printed


def test_url_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cc12m.tsv").write_text("http://x/1.jpg\ta cat\n")
    words = ["--input", tmp_path / "cc12m.tsv", "--output", tmp_path / "out.tsv"]
    code, printed, _ = run(capsys, "url-table", "--dataset", "cc12m", *words)
    assert code == 0 and "1 addresses" in printed and "img2dataset --url_list" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("inspct x", "has no verb 'inspct'; did you mean 'inspect'?"),
        ("inspect nowhere", "no shard matches 'nowhere'"),
        ("shards --source world --output_dir o", "source world needs --languages"),
        ("shards --source coco --output_dir o --input x", "source coco needs --image_dir"),
        ("shards --source moses --split val --output_dir o", "takes no --split; it takes --input"),
        ("shards --source folder --input x --task 2 --output_dir o", "folder takes no --task"),
        ("shards --source folder --input gone --output_dir o", "no folder gone; check --input"),
        ("shards --source fold --output_dir o", "no source 'fold'; there are folder, webdataset, "),
        ("shards --source folder --ouput_dir o", "did you mean 'output_dir'?"),
        ("shards --source json_keys --input x --caption_keys zh --output_dir o", "NAME=LANGUAGE"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *words.split())
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: ") and message in error
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "--help")
    assert code == 0 and "  inspect    say what shards hold" in printed


def test_help_lists_every_source_without_torch() -> None:
    script = """
import atexit, sys, crosslingual.data.sources
from crosslingual.cli.main import main
print([name for name in sys.modules if name.startswith("crosslingual_worlds")], file=sys.stderr)
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
main(["shards", "--help"])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "[]\nFalse\n")
    assert all(name in run.stdout for name in find_sources())
    assert "installed world: emoji, world." in " ".join(run.stdout.split())


def test_a_source_of_a_world_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "find_worlds", dict)
    words = ["--source", "world", "--languages", "en", "--output_dir", tmp_path / "out"]
    code, _, error = run(capsys, "shards", *words)
    assert (code, error.count("\n")) == (2, 1)
    assert "no source 'world'; there are folder, " in error
    assert "pip install -e tools/worlds" in error


@pytest.mark.parametrize(
    "change",
    [
        {"shards": [1]},
        {"shards": {}},
        {"shards": []},
        {"languages": {"en": "x"}},
        {"languages": {"jp": 3}},
        {"languages": []},
        {"num_samples": None},
        {"num_samples": 10**30},
        {"sha256": [1]},
        {"version": [1]},
    ],
)
def test_inspect_refuses_an_index_of_other_values_in_a_line(
    change: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", "world", "--languages", "en", "--num_samples", 2, "--output_dir"]
    assert run(capsys, "shards", *words, tmp_path / "s")[0] == 0
    path = tmp_path / "s/index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, error = run(capsys, "inspect", tmp_path / "s")
    assert (code, error.count("\n")) == (2, 1) and "index.json" in error
