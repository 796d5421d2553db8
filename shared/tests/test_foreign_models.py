"""Models of others: their code never runs, and what is wrong with their files is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import encoder_shape, load_multilingual_encoder
from crosslingual.frozen.weights import open_tokenizer, resolve

CODE = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
READS: list[Callable[[str], Any]] = [
    load_multilingual_encoder,
    encoder_shape,
    lambda name: open_tokenizer(name),
]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The drawn world's encoder with a module that makes a file when it is imported."""
    folder = tmp_path / "encoder"
    shutil.copytree(resolve("testbed:xlm-r"), folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The drawn world's base without weights."""
    without = shutil.ignore_patterns("*.safetensors")
    return Path(shutil.copytree(resolve("testbed:sd"), tmp_path / "base", ignore=without))


@pytest.mark.parametrize("model_type", ["xlm-roberta", "evil"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_an_encoder_with_code_of_its_own_is_refused_and_nobody_is_asked(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, file: str, model_type: str
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("stdin was asked"))
    change(encoder / "config.json", model_type=model_type)
    change(encoder / file, auto_map=CODE)
    for read in READS:
        with pytest.raises(ValueError, match=rf"\A[^\n]*{file} asks for code of its own [^\n]*\Z"):
            read(str(encoder))
    assert not (encoder.parent / "ran").exists()


def test_a_base_with_code_of_its_own_is_refused(base: Path) -> None:
    whole = (base / "model_index.json").read_text()
    for change_ in (
        {"_class_name": ["pipeline", "Evil"]},
        {"unet": ["evil", "Evil"]},
        {"tokenizer": ["os", "system"]},
        {"vae": ["diffusers", ["evil", "Evil"]]},
        {"vae": ["diffusers"]},
        {"vae": {"evil": "Evil"}},
    ):
        (base / "model_index.json").write_text(json.dumps({**json.loads(whole), **change_}))
        with pytest.raises(ValueError, match=r"\A[^\n]*(code of its own|is no class of)[^\n]*\Z"):
            open_anew(base)


@pytest.mark.parametrize("name", ["__loader__", "__name__", "utils"])
def test_a_part_of_what_is_no_class_is_one_line(base: Path, name: str) -> None:
    index = json.loads((base / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", name]
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"\A[^\n]*transformers.{name} is no class[^\n]*\Z"):
        open_anew(base).load_text(torch.device("cpu"))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"cross_attention_dim": "wide"}),
        ("unet/config.json", {"cross_attention_dim": [[1]]}),
        ("unet/config.json", {"block_out_channels": 3}),
        ("unet/config.json", {"_class_name": ["UNet2DConditionModel"]}),
        ("vae/config.json", {"block_out_channels": None}),
        ("vae/config.json", {"scaling_factor": {}}),
        ("vae/config.json", {"_class_name": "system"}),
        ("scheduler/scheduler_config.json", {"beta_start": "small"}),
        ("scheduler/scheduler_config.json", {"_class_name": []}),
        ("scheduler/scheduler_config.json", {"prediction_type": ["epsilon"]}),
        ("text_encoder/config.json", {"max_position_embeddings": [77]}),
    ],
)
def test_a_config_of_other_types_is_one_line(base: Path, file: str, values: dict[str, Any]) -> None:
    change(base / file, **values)
    with pytest.raises(ValueError, match=r"\A[^\n]*base[^\n]*\Z"):
        read_all(base)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 99_999, "\x00"])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json"])
def test_a_config_cut_short_is_one_line(base: Path, file: str, text: str) -> None:
    (base / file).write_text(text)
    with pytest.raises(
        ValueError, match=rf"\A[^\n]*{file} is broken \([^\n]*copy the base again\Z"
    ):
        read_all(base)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"version": 3}'),
        ("tokenizer_config.json", "[]"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": ["xlm-roberta"]}'),
        ("config.json", '{"model_type": "xlm-roberta", "hidden_size": "wide"}'),
    ],
)
def test_a_broken_encoder_is_one_line(encoder: Path, file: str, text: str) -> None:
    (encoder / file).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=r"\A[^\n]*encoder[^\n]*\Z"):
        load_multilingual_encoder(str(encoder))


def open_anew(base: Path) -> Base:
    return Base(str(base), None)


def read_all(base: Path) -> None:
    opened = open_anew(base)
    opened.text, opened.latents, opened.count_parameters()  # noqa: B018
