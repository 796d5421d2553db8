"""Texts above an encoder's limit: what is cut is counted and said, and a host keeps its logs."""

import json
import logging
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from crosslingual.adapter.pipeline import write_pictures
from crosslingual.adapter.settings import GenerateSettings
from crosslingual.cli.verbs import run_command
from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.features import training_data
from crosslingual.features.compute import write_run_features
from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.features.training_data import TrainingData
from crosslingual.frozen.base import Base
from crosslingual.frozen.clip import load_clip
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.frozen.tokens import Cut, on_cut, tokenize
from crosslingual.frozen.weights import quiet_libraries
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import CaptionSettings, FeaturesSettings
from crosslingual_worlds.testing.host import unchanged_host

LONG = "ein roter Stern " * 20 + "und ein Boot"  # the testbed's encoders read 32 tokens


@dataclass
class Settings(FeaturesSettings, CaptionSettings):
    """Of a `features` verb on captions."""


def cuts_of(call: Callable[[], object]) -> list[Cut]:
    cuts: list[Cut] = []
    with on_cut(cuts.append):
        call()
    return cuts


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_multilingual_encoder("testbed:xlm-r").tokenizer


def byte_tokenizer() -> Any:
    return transformers.ByT5Tokenizer()


@pytest.mark.parametrize("in_python", [False, True], ids=["fast", "in Python"])
def test_a_text_of_one_token_too_many_is_cut_by_one_and_says_which(
    tokenizer: Any, in_python: bool
) -> None:
    tokenizer = byte_tokenizer() if in_python else tokenizer
    texts = ["short", "abcdefgh x", ""]
    whole = [len(ids) for ids in tokenizer(texts).input_ids]
    assert not cuts_of(lambda: tokenize(tokenizer, texts, max(whole)))
    (cut,) = cuts_of(lambda: tokenize(tokenizer, texts, max(whole) - 1))
    assert cut == Cut(texts[1], max(whole) - 1, 1, cut.lost)
    assert texts[1].endswith(cut.lost) and cut.lost
    assert str(cut).endswith(f'the last 1 are cut, from "{cut.lost.strip()}" on')


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_ids_are_the_tokenizers_own_and_nothing_is_tokenised_twice(
    tokenizer: Any, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, options = ["a", LONG, "十"], {"padding": padding, "max_length": 32}
    expected = tokenizer(texts, truncation=True, return_tensors="pt", **options)
    calls, call = [], type(tokenizer).__call__
    count = lambda self, *args, **kwargs: calls.append(1) or call(self, *args, **kwargs)  # noqa: E731
    monkeypatch.setattr(type(tokenizer), "__call__", count)
    with pytest.warns(UserWarning, match='"ein roter Stern ein roter Stern .*longer than the 32'):
        found = tokenize(tokenizer, texts, 32, padding)
    assert torch.equal(found.input_ids, expected.input_ids) and len(calls) == 1
    assert torch.equal(found.attention_mask, expected.attention_mask)


def test_control_characters_of_a_cut_text_are_escaped(tokenizer: Any) -> None:
    (cut,) = cuts_of(lambda: tokenize(tokenizer, ["\x1b[31m\u202e " * 40], 32))
    assert str(cut).isprintable() and "\\u202e" in str(cut)


def test_a_host_is_warned_once_a_text_by_every_encoder() -> None:
    encoder, clip = load_multilingual_encoder("testbed:xlm-r"), load_clip("testbed:clip")
    text = Base.open("testbed:sd").load_text(torch.device("cpu"))
    for call in (encoder.encode, encoder.encode_packed, clip.encode_texts, text.encode):
        assert [cut.text for cut in cuts_of(lambda call=call: call(["a star", LONG]))] == [LONG]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            encoder.encode([LONG])
    assert len(caught) == 1


def test_features_count_cut_captions_by_language_however_often_they_are_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [{"en": ["a star"], "de": [LONG]}, {"en": ["a " * 40], "de": [LONG], "fr": ["a"]}]
    captions += [{"en": ["a star"], "de": ["ein Stern", LONG]}] * 2  # the second one is not read
    records = (Record(str(n), None, texts, parallel=True) for n, texts in enumerate(captions))
    write_shards(records, tmp_path / "shards")
    folder = str(tmp_path / "features")
    settings = Settings(shards=str(tmp_path / "shards"), features_dir=folder, encode_batch_size=1)
    parts = FrozenParts(Base.open("testbed:sd"), "testbed:xlm-r", ["de", "fr"])
    ranks, options = Ranks(0, 1, 0, torch.device("cpu")), {"has_pictures": False}
    encode, num_encoded = FrozenParts.encode, []

    def stop(self: FrozenParts, batch: dict[str, Any]) -> Any:
        num_encoded.append(1)
        if len(num_encoded) == 2:
            raise KeyboardInterrupt
        return encode(self, batch)

    monkeypatch.setattr(FrozenParts, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        write_run_features(settings, parts, ranks, **options, batches_per_block=1)
    write_run_features(settings, parts, ranks, **options, batches_per_block=1)
    assert len(num_encoded) == 5, "the first block stayed"
    index = json.loads((tmp_path / "features" / "index.json").read_text())
    assert index["cut"]["captions"] == {"de": 2, "en": 1}
    lost = index["cut"]["tokens"]
    line = f"were cut: de 2 ({lost['de']} tokens), en 1 ({lost['en']} tokens)\n"
    assert capsys.readouterr().out.endswith(line)


def test_training_from_shards_says_once_that_captions_are_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"{LONG} {number}" for number in range(4)]
    records = (Record(str(n), None, {"de": [text]}, True) for n, text in enumerate(texts))
    write_shards(records, tmp_path)
    loader = ShardLoader(str(tmp_path), batch_size=2, seed=0, resolution=None)
    parts = FrozenParts(Base.open("testbed:sd"), "testbed:xlm-r", ["de"], with_english=False)
    batches = TrainingData(loader, parts, {}).batches(0)
    training_data._say_once.cache_clear()  # other tests of this process may have cut some
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            next(batches)
    assert capsys.readouterr().out.count("captions longer than 32 tokens are cut") == 1


def test_generate_says_which_prompts_are_cut_and_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["a red star", "a red star " * 12 + "and\x1b[2J a blue boat"]
    settings = GenerateSettings(prompts, output_dir=str(tmp_path), num_inference_steps=1)
    settings.pretrained_model_name_or_path = "testbed:sd"
    settings.negative_prompt = "blue " * 40
    assert run_command(lambda: write_pictures(settings, None)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["prompt 0", "prompt 1", "prompt 1"]
    assert all("are cut, from" in line and "blue" in line for line in lines[::2])
    assert "a red star a red star" in lines[1] + lines[2] and "\x1b" not in "".join(lines)


def test_a_command_says_in_one_line_how_many_texts_were_cut(
    tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"{number} {LONG}" for number in range(9)]
    assert run_command(lambda: [tokenize(tokenizer, texts, 32) for _ in range(2)] and 0) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith('texts that were cut: 9, such as "0 ein roter')


def test_libraries_are_quiet_until_the_last_of_several_threads_has_loaded() -> None:
    log = logging.getLogger("transformers")
    inside, leave = threading.Event(), threading.Event()

    def load() -> None:
        with quiet_libraries():
            inside.set()
            leave.wait()

    with unchanged_host():
        thread = threading.Thread(target=load)
        thread.start()
        inside.wait()
        with pytest.raises(ValueError), quiet_libraries():
            raise ValueError
        assert log.level == logging.ERROR, "the other thread still loads"
        leave.set()
        thread.join()
        assert log.level == logging.INFO
