"""Teacher learning through the command line: what is read, what is learnt, and how it ends."""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AltCLIPModel, AltCLIPTextModel, AutoTokenizer

from altdiffusion.text.data import SentenceBatches
from altdiffusion.text.encoder import load_text_encoder
from altdiffusion.text.sentences import pooled_states
from crosslingual.frozen.clip import load_clip
from crosslingual.training.processes import Ranks
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.conformance.continual import STILL
from crosslingual_worlds.testing.conformance.training import (
    assert_dry_run,
    disturb,
    losses,
    rows,
)
from crosslingual_worlds.testing.fixtures import Command, succeeded

GOLDEN = [1.0371512, 0.8866975, 0.7782368, 0.6809648, 0.6090777, 0.5388868]
"""Losses of `whole`; a change of them is a change of what is trained."""


@pytest.fixture(scope="module")
def validated_recipe(text_recipe: dict[str, Any], shards: str) -> dict[str, Any]:
    validation = {"validation_steps": 3, "validation_data": [shards], "validation_rows": 10}
    return {**text_recipe, **validation}


@pytest.fixture(scope="module")
def whole(command: Command, validated_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Six steps of one process that nothing disturbs, validated twice."""
    run = tmp_path_factory.mktemp("whole") / "run"
    succeeded(command("train-text", output_dir=run, **validated_recipe))
    return run


def sentences_of(folder: Path, batch_size: int, **changes: Any) -> SentenceBatches:
    options = {"seed": 0, "ranks": Ranks(0, 1, 0, torch.device("cpu")), "pad": 1}
    return SentenceBatches(
        folder, batch_size=batch_size, **{**options, "by_target": False, **changes}
    )


def test_golden_trajectory(whole: Path) -> None:
    assert losses(whole) == pytest.approx(GOLDEN, rel=1e-4)


def test_a_student_goes_on_from_an_earlier_one(
    command: Command, text_recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    settings = {**text_recipe, **STILL, "init_from": whole / "text_encoder", "rehearsal": 0.5}
    succeeded(command("train-text", output_dir=tmp_path / "run", **settings))
    start, found = (
        load_file(run / "text_encoder" / "model.safetensors") for run in (whole, tmp_path / "run")
    )
    for name, tensor in start.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0.0)


def test_rehearsed_sentences_are_their_share_of_an_epoch_and_the_others_come_once(
    whole: Path,
) -> None:
    folder = whole / "sentences"
    languages = sentences_of(folder, 4).index["languages"]
    rehearsed = [name == "en" for name in languages]
    data = sentences_of(folder, 4, rehearsed=rehearsed, share=0.25)
    per_epoch = data.num_rows // 4
    rows = np.concatenate([data.rows(step) for step in range(per_epoch)])
    english = np.array(rehearsed)[data._language[rows]]
    num_others = sum(c for n, c in zip(languages, data.index["counts"], strict=True) if n != "en")
    assert data.num_rows == round(num_others / 0.75)
    assert english.mean() == pytest.approx(0.25, abs=0.06)
    others = rows[~english]
    assert len(set(others.tolist())) == len(others)
    again = np.concatenate([data.rows(step) for step in range(per_epoch, 2 * per_epoch)])
    assert not np.array_equal(rows, again)


def test_every_sentence_is_to_say_what_clip_says_of_its_english(
    whole: Path, teacher: str, encoder: str
) -> None:
    """20 parallel records in three languages; the 4 French ones without English are left out."""
    data = sentences_of(whole / "sentences", 60)
    assert data.index["num_skipped"] == 4 and data.index["num_targets"] == 20
    assert dict(zip(data.index["languages"], data.index["counts"], strict=True)) == {
        "de": 20,
        "en": 20,
        "fr": 20,
    }
    batch = data.batch(data.rows(0))
    texts = AutoTokenizer.from_pretrained(encoder).batch_decode(
        batch["ids"], skip_special_tokens=True
    )
    english = {text.split()[-1]: f"house {text.split()[-1]}" for text in texts}
    expected = pooled_states(load_clip(teacher), [english[text.split()[-1]] for text in texts])
    torch.testing.assert_close(batch["target"].float(), expected, rtol=2e-3, atol=2e-3)
    assert len(set(texts)) == 60


def test_english_sentences_and_languages_can_be_left_out(
    command: Command, text_recipe: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**text_recipe, "max_train_steps": 1, "keep_english": "false"}
    answer = succeeded(command("train-text", output_dir=tmp_path / "a", **settings))
    assert "en " not in answer["stdout"][0] and "de 20, fr 20" in answer["stdout"][0]
    again = {**settings, "languages": ["de", "en"], "keep_english": "true"}
    answer = command("train-text", output_dir=tmp_path / "b", **again)
    assert "de 20, en 20" in answer["stdout"][0] and "fr" not in answer["stdout"][0]


def test_moses_files_are_read_and_a_repeated_english_sentence_is_encoded_once(
    command: Command, text_recipe: dict[str, Any], tmp_path: Path
) -> None:
    english = ["house 1", "house 2", "house 1", "house 3"]
    german = ["Haus 1", "Haus 2", "das Haus 1", "Haus 3"]
    for language, lines in (("en", english), ("de", german)):
        with gzip.open(tmp_path / f"opus.de-en.{language}.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    settings = {**text_recipe, "train_data": [tmp_path / "opus.de-en"], "max_train_steps": 1}
    answer = succeeded(command("train-text", output_dir=tmp_path / "run", **settings))
    assert "3 targets, 0 records left out; de 4, en 4" in answer["stdout"][0]
    folder = tmp_path / "run" / "sentences"
    assert np.load(folder / "targets-00000.npy").shape == (3, 16)
    assert np.load(folder / "target_of.npy").tolist() == [0, 0, 1, 1, 0, 0, 2, 2]


def test_what_is_trained_is_a_text_encoder_and_an_altclip_that_transformers_loads(
    whole: Path, teacher: str
) -> None:
    stock, told = AltCLIPTextModel.from_pretrained(whole / "text_encoder", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    altclip, told = AltCLIPModel.from_pretrained(whole / "altclip", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    for name, tensor in stock.state_dict().items():
        assert torch.equal(altclip.text_model.state_dict()[name], tensor)
    clip = load_file(Path(teacher) / "model.safetensors")
    for name in ("text_projection.weight", "visual_projection.weight", "logit_scale"):
        assert torch.equal(altclip.state_dict()[name], clip[name])
    frozen = [name for name in clip if name.startswith("vision_model.")]
    assert all(torch.equal(altclip.state_dict()[name], clip[name]) for name in frozen)


def test_all_of_the_student_trains_and_validation_finds_it_nearer(
    command: Command, text_recipe: dict[str, Any], shards: str, tmp_path: Path, encoder: str
) -> None:
    settings = {**text_recipe, "max_train_steps": 40, "checkpointing_steps": 40}
    settings |= {"validation_steps": 20, "validation_data": [shards], "learning_rate": 3e-3}
    succeeded(command("train-text", output_dir=tmp_path, **settings))
    found = [row for row in rows(tmp_path) if "validation_error" in row]
    assert found[1]["validation_error"] < found[0]["validation_error"] < rows(tmp_path)[0]["loss"]
    assert {"validation_recall_fr", "validation_error_en"} <= set(found[0])
    before = load_file(Path(encoder) / "model.safetensors")
    after = load_file(tmp_path / "text_encoder" / "model.safetensors")
    seen = {
        f"roberta.{n.replace('encoder.layer.', 'encoder.layers.')}": t for n, t in before.items()
    }
    unmoved = [name for name, tensor in seen.items() if torch.equal(after[name], tensor)]
    assert unmoved == []


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_word_embeddings_stay_if_asked_in_the_run_and_in_an_export_of_its_checkpoint(
    command: Command, text_recipe: dict[str, Any], tmp_path: Path, encoder: str, zero_stage: int
) -> None:
    """Also where ZeRO cuts frozen tensors into pieces."""
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": zero_stage}}))
    settings = {**text_recipe, "train_embeddings": False, "learning_rate": 3e-3}
    settings |= {"deepspeed_config": tmp_path / "zero.json"}
    succeeded(command("train-text", output_dir=tmp_path / "run", **settings))
    succeeded(command("export", checkpoint=tmp_path / "run", output_dir=tmp_path / "exported"))
    before = load_file(Path(encoder) / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    for folder in ("run", "exported"):
        after = load_file(tmp_path / folder / "text_encoder" / "model.safetensors")
        parts = [name for name in before if name.startswith("embeddings.")]
        still = [name for name in parts if torch.equal(after[f"roberta.{name}"], before[name])]
        assert still == [words] and len(parts) > 3


def test_stopped_and_killed_runs_have_the_same_losses_bit_by_bit(
    command: Command, whole: Path, validated_recipe: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**validated_recipe, "output_dir": tmp_path / "run"}
    run = disturb(command, settings, [([4, 3], 2)], "text_encoder", "train-text")
    assert rows(run) == rows(whole)
    name = "text_encoder/model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()
    exporting = {"checkpoint": run / "checkpoint-6", "output_dir": tmp_path / "exported"}
    succeeded(command("export", **exporting))
    for name in ("text_encoder/model.safetensors", "altclip/model.safetensors"):
        assert (tmp_path / "exported" / name).read_bytes() == (whole / name).read_bytes()


def test_a_dry_run_says_time_and_memory_and_writes_nothing(
    command: Command, validated_recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert_dry_run(command, validated_recipe, tmp_path, "train-text")


@pytest.mark.parametrize("level", [2, 3])
def test_two_processes_train_what_one_does(
    command: Command, whole: Path, text_recipe: dict[str, Any], tmp_path: Path, level: int
) -> None:
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": level}}))
    settings = {**text_recipe, "train_batch_size": 4, "deepspeed_config": config}
    succeeded(command("train-text", {"world_size": 2}, output_dir=tmp_path / "run", **settings))
    name = "text_encoder/model.safetensors"
    ours, theirs = load_file(tmp_path / "run" / name), load_file(whole / name)
    for key, tensor in theirs.items():
        if not key.endswith("key.bias"):  # softmax ignores it: Adam makes steps of rounding noise
            torch.testing.assert_close(ours[key], tensor, atol=1e-5, rtol=1e-3)


def test_the_contrastive_stage_goes_on_with_pictures_one_caption_each(
    command: Command, whole: Path, text_recipe: dict[str, Any], teacher: str, tmp_path: Path
) -> None:
    settings = {**text_recipe, "stage": "contrastive", "text_encoder": whole / "text_encoder"}
    settings |= {"max_train_steps": 20, "learning_rate": 3e-3, "train_batch_size": 24}
    settings |= {"checkpointing_steps": 20}
    answer = succeeded(command("train-text", output_dir=tmp_path / "run", **settings))
    assert "24 targets" in answer["stdout"][0], "records without English have pictures too"
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    data = sentences_of(tmp_path / "run" / "sentences", 24, by_target=True)
    first, second = data.rows(0), data.rows(1)
    targets = np.load(tmp_path / "run" / "sentences" / "target_of.npy")
    assert sorted(targets[first]) == sorted(targets[second]) == list(range(24))
    assert set(first) != set(second), "another epoch draws other captions"
    trained = load_text_encoder(str(tmp_path / "run" / "text_encoder")).model.state_dict()
    start = load_text_encoder(str(whole / "text_encoder")).model.state_dict()
    assert not any(torch.equal(trained[name], start[name]) for name in start)
    clip = load_file(Path(teacher) / "model.safetensors")
    altclip = load_file(tmp_path / "run" / "altclip" / "model.safetensors")
    assert torch.equal(altclip["text_projection.weight"], clip["text_projection.weight"])


def test_ranks_take_their_parts_of_one_order(whole: Path) -> None:
    halves = [
        sentences_of(whole / "sentences", 5, ranks=Ranks(rank, 2, rank, torch.device("cpu")))
        for rank in range(2)
    ]
    one = sentences_of(whole / "sentences", 10)
    for step in (0, 5, 6, 13):
        together = np.concatenate([half.rows(step) for half in halves])
        assert np.array_equal(together, one.rows(step))
    epoch = np.concatenate([one.rows(step) for step in range(6)])
    assert len(set(epoch)) == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": []}, "train_data is not set: give prefixes"),
        ({"train_data": ["{tmp}/nowhere"]}, "no parallel text .*nowhere: neither files"),
        ({"languages": ["ja"]}, "no sample has captions in .ja.; there are captions in de, en, fr"),
        ({"teacher": "{tmp}/nowhere"}, "no folder and no reachable hub entry .*nowhere"),
        ({"text_encoder": "{teacher}"}, "a student starts from XLM-R"),
        ({"train_batch_size": 61}, "60 rows in .* do not fill one batch of 1 ranks x 61"),
        ({"resume_from_checkpoint": "latest"}, "no checkpoint in .*; leave out --resume_from"),
        ({"stage": "teacher"}, "stage.*teacher_learning.*contrastive"),
        ({"validation_steps": 2}, "validation_steps needs --validation_data"),
    ],
)
def test_mistakes_are_one_line(
    command: Command,
    text_recipe: dict[str, Any],
    teacher: str,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    def fitted(value: Any) -> Any:
        if isinstance(value, list):
            return [fitted(item) for item in value]
        return value.format(tmp=tmp_path, teacher=teacher) if isinstance(value, str) else value

    given = {**text_recipe, **{name: fitted(value) for name, value in changes.items()}}
    line = refusal(command("train-text", **given, output_dir=tmp_path / "run"))
    assert re.search(message, line), line
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_sentences_of_something_else_are_stale(
    command: Command, whole: Path, text_recipe: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(whole / "sentences", tmp_path / "run" / "sentences")
    other = {**text_recipe, "languages": ["de"]}
    line = refusal(command("train-text", **other, output_dir=tmp_path / "run"))
    assert "are stale: languages changed" in line
    resumed = {"output_dir": whole, "resume_from_checkpoint": "latest"}
    line = refusal(command("train-text", **other, **resumed))
    assert "was trained with other settings: languages was [] and is ['de']" in line
    line = refusal(command("train-text", **{**text_recipe, "output_dir": whole}))
    assert "holds checkpoint-6 of another run" in line


def test_damaged_sentences_are_not_trained_on_and_foreign_files_are_left(
    command: Command, text_recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "sentences"
    shutil.copytree(whole / "sentences", folder)
    data = bytearray((folder / "targets-00000.npy").read_bytes())
    data[-1] ^= 1
    (folder / "targets-00000.npy").write_bytes(data)
    with pytest.raises(ValueError, match="targets-00000.npy is not as it was written"):
        sentences_of(folder, 10)
    sentences_of(folder, 10, verify=False)
    (tmp_path / "mine" / "sentences").mkdir(parents=True)
    (tmp_path / "mine" / "sentences" / "ids.npy").write_bytes(b"mine")
    line = refusal(command("train-text", output_dir=tmp_path / "mine", **text_recipe))
    assert "sentences holds ids.npy, which is not of these sentences" in line
    assert (tmp_path / "mine" / "sentences" / "ids.npy").read_bytes() == b"mine"
