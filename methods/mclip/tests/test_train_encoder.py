"""Stage 1 through the command line: what it trains, that it can be stopped and killed, that its
result does not depend on how the work is shared out, and what mistakes cost.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.conformance.training import (
    assert_dry_run,
    files_of,
    losses,
    rows,
)
from crosslingual_worlds.testing.fixtures import Command, succeeded

GOLDEN = [10.624919, 10.577776, 10.44891, 10.350618, 10.098169, 10.447747]
"""Losses of `whole`; who changes them has changed what is trained."""

WORDS = {
    "en": ["red", "blue", "star", "ring", "left", "of"],
    "de": ["rot", "blau", "Stern", "Ring", "links", "von"],
    "fr": ["roux", "bleu", "astre", "rond", "gauche", "de"],
}


def weights_of(translation: Path) -> dict[str, torch.Tensor]:
    """All tensors of a translation model."""
    encoder = load_file(translation / "encoder" / "model.safetensors")
    return {f"encoder.{k}": v for k, v in encoder.items()} | load_file(
        translation / "model.safetensors"
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """48 sentences of one to three words in three languages, word for word."""
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        places = random.integers(0, 6, random.integers(1, 4))
        captions = {name: [" ".join(words[p] for p in places)] for name, words in WORDS.items()}
        return Record(f"{number:05d}", None, captions, parallel=True)

    folder = tmp_path_factory.mktemp("texts")
    write_shards(map(record, range(48)), folder)
    return str(folder)


@pytest.fixture(scope="module")
def stage_1(encoder: str, texts: str) -> dict[str, Any]:
    """The settings of a short run of step b, with dropout."""
    return {
        "step": "b",
        "text_encoder": encoder,
        "train_data": texts,
        "num_decoder_layers": 1,
        "decoder_ffn_width": 16,
        "num_decoder_heads": 2,
        "chunk_rows": 3,
        "chunk_tokens": 20,
        "train_batch_size": 8,
        "max_train_steps": 6,
        "learning_rate": 1e-2,
        "lr_warmup_steps": 1,
        "checkpointing_steps": 2,
        "validation_steps": 3,
        "validation_data": texts,
        "validation_rows": 12,
        "num_translated": 3,
    }


@pytest.fixture(scope="module")
def whole(command: Command, stage_1: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Six steps of one process that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    succeeded(command("train-encoder", output_dir=run, **stage_1))
    return run


def test_golden_trajectory(whole: Path) -> None:
    assert losses(whole) == pytest.approx(GOLDEN, rel=1e-4)


def test_validation_logs_loss_recall_and_bleu_of_every_pair(whole: Path) -> None:
    found = [row for row in rows(whole) if "validation_loss" in row]
    assert [row["step"] for row in found] == [3, 6]
    for row in found:
        recalls = [row[f"validation_recall@1_{name}"] for name in ("de-en", "en-fr")]
        assert row["validation_recall@1"] == pytest.approx(sum(recalls) / 2)
        bleus = [row[f"validation_bleu_{name}"] for name in ("de-en", "en-de", "en-fr", "fr-en")]
        assert row["validation_bleu"] == pytest.approx(sum(bleus) / 4)
    assert found[1]["validation_loss"] < found[0]["validation_loss"]


def test_stopped_and_killed_runs_are_the_same_bit_by_bit(
    command: Command, whole: Path, stage_1: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    succeeded(command("train-encoder", {"terminate": [0, 1]}, output_dir=run, **stage_1))
    assert (run / "latest").read_text() == "checkpoint-1\n"
    assert not (run / "translation").exists()
    resumed = {**stage_1, "output_dir": run, "resume_from_checkpoint": "latest"}
    for fault in ([3], [4, 3]):
        assert command("train-encoder", {"die": fault}, **resumed)["codes"] == [-9]
        assert (run / "latest").read_text() == "checkpoint-2\n"
    succeeded(command("train-encoder", **resumed))
    assert rows(run) == rows(whole)
    assert files_of(run / "translation") == files_of(whole / "translation")


def test_a_dry_run_says_time_and_memory_and_writes_nothing(
    command: Command, stage_1: dict[str, Any], tmp_path: Path
) -> None:
    assert_dry_run(command, stage_1, tmp_path, "train-encoder")


@pytest.fixture(scope="module")
def steady(stage_1: dict[str, Any]) -> dict[str, Any]:
    """The settings without dropout, in the encoder neither, over the text's own tokens."""
    return {**stage_1, "dropout": 0.0, "encoder_dropout": 0.0, "output_vocabulary": "text"}


@pytest.fixture(scope="module")
def alone(command: Command, steady: dict[str, Any], tmp_path_factory: Any) -> Path:
    """`steady`, by one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    succeeded(command("train-encoder", output_dir=run, **steady))
    return run


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_two_processes_train_what_one_does(
    command: Command, alone: Path, steady: dict[str, Any], tmp_path: Path, stage: int
) -> None:
    """Up to the order of sums, which Adam's first steps enlarge: without bound where a gradient is
    zero but for rounding, as that of the keys' bias is, which attention cannot see.
    """
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    settings = {**steady, "deepspeed_config": config, "train_batch_size": 4}
    succeeded(command("train-encoder", {"world_size": 2}, output_dir=tmp_path / "run", **settings))
    for ours, theirs in zip(rows(tmp_path / "run"), rows(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    expected = weights_of(alone / "translation")
    for name, tensor in weights_of(tmp_path / "run" / "translation").items():
        if not name.endswith(("key.bias", "k_proj.bias")):
            torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def step_a(command: Command, stage_1: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Step a, which translates both ways at once."""
    run = tmp_path_factory.mktemp("step-a") / "run"
    changes = {"step": "a", "max_train_steps": 40, "checkpointing_steps": 40}
    changes |= {"both_ways": "true", "validation_steps": 0, "lr_scheduler": "constant"}
    succeeded(command("train-encoder", output_dir=run, **{**stage_1, **changes}))
    return run


def test_step_a_lowers_the_loss_and_leaves_the_encoder_as_it_was(
    step_a: Path, encoder: str
) -> None:
    assert np.mean(losses(step_a)[-5:]) < 0.9 * np.mean(losses(step_a)[:5])
    assert "ctl" not in rows(step_a)[0]
    before = load_file(Path(encoder) / "model.safetensors")
    after = load_file(step_a / "translation" / "encoder" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_step_b_goes_on_from_step_a_and_trains_the_encoders_layers_alone(
    command: Command, step_a: Path, stage_1: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**stage_1, "max_train_steps": 2, "learning_rate": 1e-3}
    settings |= {"translation_model": step_a / "translation", "text_encoder": "null"}
    succeeded(command("train-encoder", output_dir=tmp_path / "run", **settings))
    first = rows(tmp_path / "run")[0]
    assert first["nmt"] < 0.9 * rows(step_a)[0]["loss"]
    assert first["loss"] == pytest.approx(first["nmt"] + 2 * first["ctl"], rel=1e-4)
    before = weights_of(step_a / "translation")
    after = weights_of(tmp_path / "run" / "translation")
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {name for name in before if name.startswith("encoder.embeddings.")}
    loaded = load_multilingual_encoder(str(tmp_path / "run" / "translation" / "encoder"))
    states, _ = loaded.encode(["rot"])
    assert torch.isfinite(states).all()


def test_a_decoder_of_the_text_s_tokens_learns_and_is_written_with_them(
    command: Command, stage_1: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """The loss falls as over the whole vocabulary, from a lower start, and resumes."""
    settings = {**stage_1, "output_vocabulary": "text", "output_dir": tmp_path}
    succeeded(command("train-encoder", {"terminate": [0, 1]}, **settings))
    succeeded(command("train-encoder", **settings, resume_from_checkpoint="latest"))
    found = losses(tmp_path)
    assert all(
        r["validation_unknown_tokens"] == 0 for r in rows(tmp_path) if "validation_bleu" in r
    )
    assert found[-1] < found[0] < losses(whole)[0]
    held = load_file(tmp_path / "translation" / "model.safetensors")["output_ids"]
    tokenizer = load_multilingual_encoder(stage_1["text_encoder"]).tokenizer
    texts = [word for words in WORDS.values() for word in words]
    said = {token for ids in tokenizer(texts).input_ids for token in ids}
    assert said <= set(held.tolist()) and len(held) < len(said) + 8 < len(tokenizer)


def test_tokens_on_disk_train_as_their_text_does(
    command: Command, whole: Path, stage_1: dict[str, Any], texts: str, encoder: str, tmp_path: Path
) -> None:
    folder = tmp_path / "tokens"
    made = succeeded(command("tokenize", train_data=texts, text_encoder=encoder, tokens_dir=folder))
    assert "sentence pairs: de-en 48, en-fr 48; records 48" in made["stdout"][0]
    settings = {**stage_1, "train_data": folder, "max_train_steps": 2, "pairs": "en-centric"}
    succeeded(command("train-encoder", output_dir=tmp_path / "run", **settings))
    assert rows(tmp_path / "run") == rows(whole)[:2]
    assert not (tmp_path / "run" / "tokens").exists()
    other = {**settings, "text_encoder": "testbed:xlm-r", "output_dir": tmp_path / "other"}
    assert "are stale: tokenizer was" in refusal(command("train-encoder", **other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": []}, "no parallel text is named"),
        ({"train_data": "{tmp}/nowhere"}, "no parallel text .*nowhere"),
        ({"pairs": "en-ja"}, "'ja' is no language of this text; there are de, en, fr"),
        ({"pairs": "endo"}, "'endo' is no language of this text"),
        ({"train_batch_size": 49}, "48 sentence pairs of .* do not fill one batch of 49"),
        ({"max_length": 99}, "max_length is 99; .* reads 3 to 16 tokens"),
        ({"num_decoder_heads": 5}, "5 decoder heads do not divide the width 12"),
        ({"resume_from_checkpoint": "latest"}, "no checkpoint in .*; leave out --resume_from"),
        ({"validation_data": []}, "validation_steps needs --validation_data"),
        ({"deepspeed_config": "{tmp}/zero3.json"}, "ZeRO stages 0 to 2; use ds/zero2.json"),
        ({"pair_temperature": -1}, "pair_temperature is -1"),
        ({"step": "c"}, "step"),
        ({"translation_model": "{tmp}/nowhere"}, "nowhere"),
    ],
)
def test_mistakes_are_one_line(
    command: Command, stage_1: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "zero3.json").write_text('{"zero_optimization": {"stage": 3}}')
    changes = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in changes.items()}
    settings = {**stage_1, **changes, "output_dir": tmp_path / "run"}
    line = refusal(command("train-encoder", **settings))
    assert re.search(message, line), line
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_a_language_that_the_former_steps_model_lacks_is_named(
    command: Command, stage_1: dict[str, Any], step_a: Path, texts: str, tmp_path: Path
) -> None:
    folder = tmp_path / "translation"
    shutil.copytree(step_a / "translation", folder)
    (folder / "crosslingual.json").unlink()  # as from an earlier version: its files change here
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "languages": ["de", "en", "ja"]}))
    settings = {**stage_1, "translation_model": folder, "output_dir": tmp_path / "run"}
    line = refusal(command("train-encoder", **settings))
    assert "does not translate into 'fr', but into de, en, ja" in line


def test_a_loss_that_is_no_number_names_the_step_and_the_sentences(
    command: Command, stage_1: dict[str, Any], step_a: Path, texts: str, tmp_path: Path
) -> None:
    folder = tmp_path / "translation"
    shutil.copytree(step_a / "translation", folder)
    (folder / "crosslingual.json").unlink()
    state = load_file(folder / "model.safetensors")
    state["language_maps.bias"][:] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {**stage_1, "translation_model": folder, "output_dir": tmp_path / "run"}
    line = refusal(command("train-encoder", **settings))
    found = re.search(
        r"the loss of step 1 is nan \(nmt nan, nll nan, ctl [\d.]+\) on samples (.*?);", line
    )
    keys = found[1].split(", ")
    assert len(keys) == 8 and all(key.startswith(f"{texts}:") for key in keys)
