"""Adapters on disk: complete or absent, safetensors only, and strict in what they load."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from crosslingual.adapter.artifact import (
    claim_artifact,
    load_adapter,
    load_artifact,
    load_artifact_config,
    load_strict,
    load_tensors,
    model_card,
    read_state_dict,
    save_artifact,
)
from crosslingual.cli.verbs import run_command

FILES = ["README.md", "config.json", "crosslingual.json", "model.safetensors"]
CONFIG = {"method": "pea", "width": 4, "null": "encoded", "languages": ["de", "zh"]}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "exports" / "adapter"
    torch.manual_seed(0)
    save_artifact(folder, state=nn.Linear(4, 4).state_dict(), config=CONFIG, card="# Adapter\n")
    return folder


def test_what_is_saved_is_loaded_bitwise(adapter: Path) -> None:
    config, state = load_artifact(adapter)
    assert config == CONFIG
    torch.manual_seed(0)
    expected, module = nn.Linear(4, 4), nn.Linear(4, 4)
    load_strict(module, state)
    assert all(torch.equal(module.state_dict()[n], t) for n, t in expected.state_dict().items())
    assert sorted(os.listdir(adapter)) == FILES
    assert os.listdir(adapter.parent) == ["adapter"]


def test_saving_again_replaces_and_other_folders_are_left_alone(
    adapter: Path, tmp_path: Path
) -> None:
    save_artifact(adapter, state={"w": torch.zeros(2)}, config={}, card="")
    assert load_artifact(adapter)[1].keys() == {"w"}
    assert os.listdir(adapter.parent) == ["adapter"]
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "cat.jpg").touch()
    with pytest.raises(ValueError, match="holds cat.jpg and no crosslingual.json"):
        save_artifact(tmp_path / "photographs", state={}, config={}, card="")


def test_what_is_added_appears_and_goes_with_the_rest(tmp_path: Path) -> None:
    def add(folder: Path) -> None:
        (folder / "encoder").mkdir()
        (folder / "encoder" / "config.json").write_text("{}")

    folder, given = tmp_path / "model", {"state": {}, "config": {}, "card": ""}
    save_artifact(folder, **given, add=add)
    assert (folder / "encoder" / "config.json").is_file()
    save_artifact(folder, **given)
    assert sorted(os.listdir(folder)) == FILES


def test_views_and_shared_tensors_are_saved(tmp_path: Path) -> None:
    weights = torch.arange(12.0).reshape(3, 4)
    state = {"first": weights[:2], "transposed": weights.T, "whole": weights}
    save_artifact(tmp_path / "a", state=state, config={}, card="")
    loaded = load_artifact(tmp_path / "a")[1]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_a_full_disk_leaves_the_earlier_adapter(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_disk / "adapter"
    save_artifact(folder, state={"w": torch.zeros(9)}, config=CONFIG, card="")
    big = {"w": torch.zeros(2**20)}
    assert run_command(lambda: save_artifact(folder, state=big, config=CONFIG, card="")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the disk is full: ") and error.count("\n") == 1
    assert "the earlier one is intact" in error
    assert load_artifact(folder)[1]["w"].shape == (9,)
    assert os.listdir(small_disk) == ["adapter"]


@pytest.mark.parametrize("name", ["adapter.pth", "model.safetensors"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    """By its name, or by its first bytes where the name lies."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    torch.save({"w": torch.zeros(1)}, folder / name)
    (folder / "config.json").write_text('{"format_version": 1}')
    message = f"{name} is a pickle, which can run code; run the method's `import` verb"
    with pytest.raises(ValueError, match=message):
        load_artifact(folder)
    with pytest.raises(ValueError, match=message):
        load_artifact(folder / name)
    with pytest.raises(ValueError, match=message):
        load_tensors(folder / name)


@pytest.mark.parametrize("length", [640, 1152])
def test_safetensors_whose_header_is_as_long_as_a_pickle_starts_are_loaded(
    tmp_path: Path, length: int
) -> None:
    """640 and 1152 are written as the first two bytes of pickles of protocol 2 and 4."""
    path, value = tmp_path / "adapter.safetensors", torch.ones(2)
    for size in range(length):
        save_file({"a": value}, path, {"note": "x" * size})
        if path.read_bytes()[:8] == length.to_bytes(8, "little"):
            break
    assert torch.equal(load_tensors(path)["a"], value)


def test_a_legacy_pickle_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    torch.save({"w": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="is a pickle"):
        load_tensors(path)


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"PK\x03\x04", b"text", b"(dp0\n."])
def test_a_published_file_that_is_no_state_dict_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "published.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"\A[^\n]*published.pt is no [^\n]*state dict[^\n]*\Z"):
        read_state_dict(tmp_path / "published.pt")


def test_missing_and_broken_files_are_named(adapter: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no adapter .*elsewhere; export one first"):
        load_artifact(adapter.parent / "elsewhere")
    config = adapter / "config.json"
    config.write_text(json.dumps({"format_version": 2}))
    with pytest.raises(ValueError, match="has format_version 2; this program reads 1"):
        load_artifact(adapter)
    config.write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_artifact(adapter)
    config.unlink()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_artifact(adapter)
    weights = adapter / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 8)
    with pytest.raises(ValueError, match="model.safetensors is broken"):
        load_tensors(weights)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        load_artifact(adapter)
    shutil.rmtree(adapter)
    adapter.touch()
    with pytest.raises(ValueError, match="is no adapter folder"):
        load_artifact(adapter)


def test_weights_of_another_module_are_listed(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}, tmp_path / "w.safetensors")
    module = nn.Linear(4, 4)
    before = module.weight.clone()
    with pytest.raises(ValueError) as raised:
        load_strict(module, load_tensors(tmp_path / "w.safetensors"))
    assert str(raised.value) == (
        "these weights are not Linear's; missing: bias; unexpected: scale; "
        "of another shape: weight is (3, 4), not (4, 4)"
    )
    assert torch.equal(module.weight, before)


def test_the_card_has_the_hubs_head_and_the_table() -> None:
    base = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    card = model_card(
        "PEA for SD 1.5",
        "It reads {reads}; width {width}.",
        {"method": "pea", "base": base, "languages": ["de", "no"], "width": 4},
        tags=["multilingual"],
        results=[{"language": "de", "accuracy": 0.91}, {"language": "no", "accuracy": 0.88}],
        reads="German",
    )
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "crosslingual",
        "base_model": base,
        "base_model_relation": "adapter",
        "language": ["de", "no"],
        "pipeline_tag": "text-to-image",
        "tags": ["pea", "cross-lingual", "multilingual"],
        "license": "mit",
    }
    assert (
        "# PEA for SD 1.5\n\nIt reads German; width 4.\n\n| language | accuracy |\n| --- |" in body
    )
    assert body.endswith("| de | 0.91 |\n| no | 0.88 |\n")


def test_the_lines_that_load_a_base_are_those_that_can() -> None:
    """diffusers knows hub ids and folders, and Base a world's models too."""
    loaded = {}
    for base in ("org/name", "testbed:sd"):
        config = {"method": "m", "base": base, "languages": []}
        loaded[base] = model_card("Title", "{import_base}\npipe = {load_base}", config)
    assert (
        "from diffusers import DiffusionPipeline\n"
        'pipe = DiffusionPipeline.from_pretrained("org/name")\n' in loaded["org/name"]
    )
    assert (
        "from crosslingual.frozen.base import Base\n"
        'pipe = Base.open("testbed:sd").load_pipeline()\n' in loaded["testbed:sd"]
    )


def test_tensors_may_lie_in_a_folder_of_a_librarys_own(tmp_path: Path) -> None:
    """As a text encoder that transformers reads: there is no model.safetensors beside it."""

    def add(partial: Path) -> None:
        (partial / "text_encoder").mkdir()
        (partial / "text_encoder" / "model.safetensors").write_bytes(b"tensors")

    save_artifact(tmp_path / "it", state=None, config={"method": "m"}, card="text", add=add)
    names = sorted(path.name for path in (tmp_path / "it").iterdir())
    assert names == ["README.md", "config.json", "crosslingual.json", "text_encoder"]
    assert load_artifact_config(tmp_path / "it") == {"method": "m"}
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_artifact(tmp_path / "it")
    with pytest.raises(FileNotFoundError, match="no adapter .*nowhere; export one first"):
        load_artifact_config(tmp_path / "nowhere")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_one_flipped_byte_is_not_loaded(adapter: Path, name: str) -> None:
    flip(adapter / name)
    words = rf"{name} is not( JSON of an adapter|.* as it was written \(its sha256 differs)"
    with pytest.raises(ValueError, match=words):
        load_artifact(adapter)


def test_parts_of_an_artifact_are_checked_against_the_mark_above_them(tmp_path: Path) -> None:
    def add(folder: Path) -> None:
        (folder / "encoder").mkdir()
        save_file({"w": torch.zeros(9)}, folder / "encoder/model.safetensors")

    folder = save_artifact(tmp_path / "m", state={}, config=CONFIG, card="", add=add)
    load_tensors(folder / "encoder/model.safetensors")
    flip(folder / "encoder/model.safetensors")
    with pytest.raises(ValueError, match="encoder/model.safetensors is not as it was written"):
        load_tensors(folder / "encoder/model.safetensors")


def test_an_adapter_of_an_earlier_version_loads_and_is_replaced_by_its_own_method(
    adapter: Path,
) -> None:
    (adapter / "crosslingual.json").unlink()
    assert load_artifact(adapter, "pea")[0] == CONFIG
    given = {"state": {}, "card": ""}
    with pytest.raises(ValueError, match="remove it if an earlier version wrote it"):
        save_artifact(adapter, config={**CONFIG, "method": "mulan"}, **given)
    save_artifact(adapter, config=CONFIG, **given)
    (adapter / "crosslingual.json").unlink()
    (adapter / "tokenizer.json").write_text("mine")
    with pytest.raises(ValueError, match="holds README.md and no crosslingual.json"):
        save_artifact(adapter, config=CONFIG, **given)
    assert (adapter / "tokenizer.json").read_text() == "mine"


def test_a_rewritten_card_is_loaded_and_not_replaced(adapter: Path) -> None:
    (adapter / "README.md").write_text("my own words")
    load_artifact(adapter, "pea")
    for act in (
        lambda: claim_artifact(adapter, "pea"),
        lambda: save_artifact(adapter, state={}, config=CONFIG, card=""),
    ):
        with pytest.raises(ValueError, match="README.md was changed since it was written; remove"):
            act()
    assert (adapter / "README.md").read_text() == "my own words"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "is not JSON of an adapter"),
        ('"text"', "is not JSON of an adapter"),
        ("[" * 2000, "is not JSON of an adapter"),
        ("\xff", "is not JSON of an adapter"),
        ('{"format_version": 1, "method": "pea"}', "config.json has no 'width'"),
        ('{"format_version": 1, "method": "pea", "max_length": 0}', "its max_length is 0"),
        ('{"format_version": 1, "method": "pea", "guidance_scale": "x"}', "guidance_scale is 'x'"),
        ('{"format_version": 1, "method": "pea", "languages": "de"}', "its languages is 'de'"),
        ('{"format_version": 1, "method": "pea", "width": "a"}', "describes no adapter of pea"),
        ('{"format_version": 1, "method": "pea", "width": 1e99}', "describes no adapter of pea"),
        ('{"format_version": 1, "method": "pea", "width": 99999999999}', "describes no adapter of"),
    ],
)
def test_a_config_that_describes_no_adapter_is_named(adapter: Path, text: str, words: str) -> None:
    (adapter / "crosslingual.json").unlink()
    (adapter / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        load_adapter(adapter, "pea", lambda config: nn.Linear(config["width"], 4))
