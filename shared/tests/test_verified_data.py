"""What is read from disk in training is what was written: shards, features, their indexes."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from crosslingual.cli.shards import InspectSettings, survey
from crosslingual.data.index import check_hashes, read_index, shard_sizes
from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.features import blocks
from crosslingual.features.compute import write_run_features
from crosslingual.features.loader import FeatureLoader
from crosslingual.files import hold_folder
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import CaptionSettings, FeaturesSettings

ALONE = Ranks(0, 1, 0, torch.device("cpu"))


@dataclass
class Settings(FeaturesSettings, CaptionSettings):
    """Of a `features` verb on captions."""


class CountingParts:
    """Parts that make of a caption its length, and count the batches."""

    languages = ["en"]
    made_of = {"languages": ["en"], "encoder": "counting"}

    def __init__(self, last: int | None = None) -> None:
        self.num_batches, self.last = 0, last

    def encode(self, batch: dict) -> dict:
        if self.num_batches == self.last:
            raise KeyboardInterrupt
        self.num_batches += 1
        return {"count": torch.tensor([len(c["en"][0]) for c in batch["captions"]])}

    def null(self) -> dict:
        return {"count": torch.zeros(1)}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shards"
    captions = ["x" * number for number in range(1, 23)]
    write_shards((Record(t, None, {"en": [t]}, True) for t in captions), folder)
    return folder


def write(shards: Path, folder: Path, parts: Any = None, **settings: Any) -> Path:
    asked = Settings(shards=str(shards), features_dir=str(folder), encode_batch_size=3, **settings)
    parts = parts or CountingParts()
    return write_run_features(asked, parts, ALONE, has_pictures=False, batches_per_block=2)


@pytest.fixture(scope="module")
def features(shards: Path) -> Path:
    """22 captions in blocks of 6."""
    return write(shards, shards.parent / "features")


@pytest.fixture
def copy(features: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(features, tmp_path / "features"))


def read_all(folder: Path, **options: Any) -> dict[str, Any]:
    loader = FeatureLoader(folder, batch_size=4, seed=0, **options)
    loader.null()
    return loader.rows(torch.arange(22))


def test_a_flipped_byte_of_a_shard_is_refused_where_it_is_first_read(
    shards: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(shards, tmp_path / "shards")
    check_hashes(copy, read_index(copy))
    flip(copy / "00000.tar", (copy / "00000.tar").read_bytes().rindex(b"xxxxxxx"))
    line = r"\A[^\n]*00000.tar is damaged: its SHA-256 [^\n]* copy or write it again[^\n]*\Z"
    options: dict[str, Any] = {"batch_size": 2, "seed": 0, "resolution": None}
    for read in (
        lambda: check_hashes(copy, read_index(copy)),
        lambda: ShardLoader(str(copy), **options),
        lambda: write(copy, tmp_path / "features"),
    ):
        with pytest.raises(ValueError, match=line):
            read()
    assert not (tmp_path / "features").exists()
    assert len(ShardLoader(str(copy), **options, verify=False)) == 11
    write(copy, tmp_path / "features", verify_data=False)


def test_a_shard_is_hashed_once_for_all_workers(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = ShardLoader(str(shards), batch_size=2, seed=0, resolution=None, num_workers=2)
    monkeypatch.setattr("crosslingual.data.loader.check_hash", lambda *_: 1 / 0)
    batches = loader.batches()
    assert len([next(batches) for _ in range(3)]) == 3


@pytest.mark.parametrize("count", ["many", -1, 10**9, True, 2.5, [3]])
def test_an_absurd_count_of_samples_is_refused(shards: Path, tmp_path: Path, count: Any) -> None:
    shutil.copy(shards / "00000.tar", tmp_path)
    (tmp_path / "sizes.json").write_text(json.dumps({"00000.tar": count}))
    with pytest.raises(ValueError, match=r"sizes.json says .* for 00000.tar, which cannot be"):
        shard_sizes([str(tmp_path / "00000.tar")])


@pytest.mark.parametrize("name", ["index.json", "sizes.json"])
def test_a_changed_number_beside_shards_is_refused(shards: Path, tmp_path: Path, name: str) -> None:
    """A bit more or less makes 0 of 8: the samples of a shard would be lost in silence."""
    folder = shutil.copytree(shards, tmp_path / "shards")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(": 22", ": 20"))
    for read in (
        lambda: ShardLoader(str(folder), batch_size=2, seed=0, resolution=None),
        lambda: survey(InspectSettings(str(folder))),
    ):
        with pytest.raises(ValueError, match=f"{name} is not as it was written"):
            read()
    (folder / "crosslingual.json").unlink()  # what the message says
    ShardLoader(str(folder), batch_size=2, seed=0, resolution=None)


def test_every_flipped_byte_of_a_block_is_refused_or_means_the_same(copy: Path) -> None:
    """Header, notes and arrays; the few that pass give equal arrays and keys."""
    for name in ("block-00001.safetensors", "null.safetensors"):
        path = copy / name
        whole, expected = path.read_bytes(), read_all(copy)["count"]
        for place in range(0, len(whole), 7):
            flip(path, place)
            try:
                assert torch.equal(read_all(copy)["count"], expected), place
            except ValueError as error:
                assert re.search(rf"\A[^\n]*{name} (is (damaged|truncated)|holds)", str(error))
            path.write_bytes(whole)


def test_a_truncated_block_names_the_remedy_and_the_remedy_works(
    shards: Path, features: Path, copy: Path
) -> None:
    path = copy / "block-00002.safetensors"
    for size in (0, 7, 200, path.stat().st_size - 1):
        os.truncate(path, size)
        for read in (read_all, lambda folder: write(shards, folder)):
            with pytest.raises(
                ValueError, match="truncated .*; remove it and run `features` again"
            ):
                read(copy)
        shutil.copy(features / path.name, path)
    flip(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match="is damaged .*; remove it and run `features` again"):
        read_all(copy)
    read_all(copy, verify=False)
    path.unlink()
    parts = CountingParts()
    write(shards, copy, parts)
    assert parts.num_batches == 2
    assert path.read_bytes() == (features / path.name).read_bytes()


def test_a_block_of_other_features_is_never_read(shards: Path, features: Path, copy: Path) -> None:
    """Neither in place of one, nor after the last one, nor in a folder that nobody claimed."""
    other = CountingParts()
    other.made_of = {**other.made_of, "encoder": "another"}
    foreign = write(shards, copy.parent / "other", other) / "block-00001.safetensors"
    shutil.copy(foreign, copy / "block-00007.safetensors")
    write(shards, copy)
    assert torch.equal(read_all(copy)["count"], torch.arange(1, 23))
    shutil.copy(foreign, copy)
    with pytest.raises(ValueError, match="block-00001.safetensors is damaged"):
        read_all(copy)
    with pytest.raises(ValueError, match="is not of these features; move it away"):
        write(shards, copy)
    for name in ("block-00007.safetensors", "labels.csv"):
        used = copy.parent / name[:5]
        used.mkdir()
        (used / name).write_text("mine")
        with pytest.raises(ValueError, match=f"holds {name}, .* choose another, empty --features_"):
            write(shards, used)
        assert [path.name for path in used.iterdir()] == [name]


def test_a_stopped_pass_goes_on_bit_by_bit(shards: Path, features: Path, tmp_path: Path) -> None:
    """With its index gone, or after an interruption; what a killed process left is no trouble."""
    folder = tmp_path / "features"
    with pytest.raises(KeyboardInterrupt):
        write(shards, folder, CountingParts(last=5))
    assert len(list(folder.glob("block-*"))) == 2
    (folder / ".block-00002.safetensors.0123456789abcdef").write_bytes(b"half")
    parts = CountingParts()
    write(shards, folder, parts)
    assert parts.num_batches == 8 - 4
    for path in features.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_blocks_of_earlier_versions_are_read_and_completed(
    shards: Path, features: Path, copy: Path
) -> None:
    """They have no SHA-256 and do not know what they are made of."""
    for path in copy.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            keys = file.metadata()["keys"]
        save_file(load_file(path), path, metadata={"keys": keys})
    index = json.loads((copy / "index.json").read_text())
    for block in index["blocks"]:
        del block["sha256"]
    del index["null_sha256"], index["made_of"]["block_format"]
    (copy / "index.json").write_text(json.dumps(index))
    (copy / "made_of.json").write_text(json.dumps(index["made_of"]))
    assert torch.equal(read_all(copy)["count"], torch.arange(1, 23))
    (copy / "block-00001.safetensors").unlink()
    write(shards, copy)
    assert torch.equal(read_all(copy)["count"], torch.arange(1, 23))


def test_a_folder_of_features_has_one_writer(shards: Path, tmp_path: Path) -> None:
    code = "import sys; from crosslingual.files import hold_folder as h; h(sys.argv[1]); input()"
    folder = tmp_path / "features"
    with subprocess.Popen([sys.executable, "-c", code, folder], stdin=subprocess.PIPE) as other:
        while not (folder / ".lock").exists() or not (folder / ".lock").read_text():
            assert other.poll() is None
        with pytest.raises(ValueError, match="written by process .* choose another --features_dir"):
            write(shards, folder)
        other.communicate(b"\n")
    with hold_folder(folder):  # this process may hold it twice
        write(shards, folder)


def test_a_full_disk_is_one_line_and_the_pass_goes_on(
    shards: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(tensors: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    save, folder = blocks.save_file, tmp_path / "features"
    monkeypatch.setattr(blocks, "save_file", fill)
    with pytest.raises(OSError, match="the disk is full: .*; make room and run `features` again"):
        write(shards, folder)
    assert [path.name for path in folder.iterdir()] == ["made_of.json"]
    monkeypatch.setattr(blocks, "save_file", save)
    write(shards, folder)
    assert (folder / "index.json").read_bytes() == (features / "index.json").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [{"name": "../block-00000.safetensors", "num_rows": 22}]},
        {"blocks": [{"name": "block-00000.safetensors", "num_rows": "22"}]},
        {"blocks": ["block-00000.safetensors"]},
        {"made_of": None},
        {"languages": ["de"]},
        {"cut": [1]},
        "{",
        "[]",
        b"\xff",
    ],
)
def test_a_broken_index_of_features_is_one_line(copy: Path, change: Any) -> None:
    path = copy / "index.json"
    if isinstance(change, dict):
        change = json.dumps({**json.loads(path.read_text()), **change})
    path.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(ValueError, match=r"\A[^\n]*index.json is broken \([^\n]*anew\Z"):
        read_all(copy)
