"""What every method promises of its training, for IAP, and what IAP promises of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from crosslingual.frozen.base import Base
from crosslingual.frozen.tokens import tokenize
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.conformance.continual import STILL
from crosslingual_worlds.testing.conformance.families import PROMPTS, Expected
from crosslingual_worlds.testing.conformance.training import losses
from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded
from iap.artifact import load_encoder, load_head

WORDS = "embeddings.word_embeddings.weight"


def encoder_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "text_encoder" / "model.safetensors")


class TestFamilies(conformance.Families):
    changes = {
        "sana": {"query_positions": 8, "english_draws": 1},
        "pixart": {"branch": "full", "noise_weight": 0.5},
        "pixart_sigma": {"layers": ["0"]},
        "sdxl": {"layers": ["mid", "up"], "pooled_weight": 0.5},
    }

    def expected(self, subject: Subject, folder: Path) -> Expected:
        model, tokenizer, config = load_encoder(folder)
        prompts = [Base.open(config["base"]).family.prompt(prompt) for prompt in PROMPTS]
        tokens = tokenize(tokenizer, prompts, config["max_length"], "max_length")
        with torch.no_grad():
            states = model(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
            head = load_head(folder, config)
            pooled = states[:, 0] @ head["linear.weight"].T + head["linear.bias"] if head else None
        return Expected(states, pooled, tokens.attention_mask)


class TestTraining(conformance.Training):
    """Every row is parallel here, so that a mean of means is the mean."""

    golden = (22.569298, 9.1867199, 6.1987562, 2.0415325, 1.5790722, 1.2533295)
    files = {
        "README.md",
        "config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    learns = (
        {"caption_dropout": 0.0, "branch": "local"},
        {"caption_dropout": 0.0, "branch": "full", "noise_weight": 0.5, "layers": ["mid", "up"]},
        {"caption_dropout": 0.0, "train_encoder": "lora", "lora_rank": 4, "distance": "smooth_l1"},
        {"caption_dropout": 0.0, "objective": "text", "train_embeddings": False},
    )
    atol, rtol = 1e-4, 1e-3
    num_trainable = 5880 + 2 * 12 + 12 * 16 + 16

    def check_learnt(
        self, recipe: Mapping[str, Any], learning: Mapping[str, Any], folder: Path
    ) -> None:
        start = load_file(Path(recipe["text_encoder"]) / "model.safetensors")[WORDS]
        same = torch.equal(encoder_of(folder)[f"roberta.{WORDS}"], start)
        lora, trains = learning.get("train_encoder") == "lora", learning.get("train_embeddings")
        assert same == (lora or trains is False), "LoRA leaves the embeddings"


class TestContinual(conformance.Continual):
    """LoRA goes on from an export, too, whose weights are its frozen ones."""

    other = ({"train_data": "{shards}", "max_length": 8}, "differ in max_length (16 and 8)")

    def test_lora_starts_from_the_export_s_weights(
        self, command: Command, recipe: dict[str, Any], exported: Path, tmp_path: Path
    ) -> None:
        settings = {**recipe, **STILL, "train_encoder": "lora", "init_from": exported}
        succeeded(command("train", **settings, distance="cosine", output_dir=tmp_path / "run"))
        start, found = encoder_of(exported), encoder_of(tmp_path / "run" / "encoder")
        for name, tensor in start.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0.0)


def test_export_writes_the_whole_pipeline_if_asked(
    command: Command, whole: Path, tmp_path: Path
) -> None:
    succeeded(command("export", checkpoint=whole, output_dir=tmp_path / "with", pipeline="true"))
    index = json.loads((tmp_path / "with" / "pipeline" / "model_index.json").read_text())
    assert index["text_encoder"] == ["transformers", "AltCLIPTextModel"]
    assert index["tokenizer"] == ["transformers", "XLMRobertaTokenizer"]
    assert encoder_of(tmp_path / "with" / "pipeline").keys() == encoder_of(whole / "encoder").keys()


@pytest.fixture(scope="module")
def kept(
    command: Command,
    parts: dict[str, Any],
    shards: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Features with the queries of two English passes for each picture, 3 positions of a layer."""
    folder = tmp_path_factory.mktemp("kept")
    queries = {"english_draws": 2, "query_positions": 3}
    places = {"shards": shards, "features_dir": folder, "encode_batch_size": 8}
    succeeded(command("features", **places, **queries, **parts))
    return {"train_data": folder, **queries}


@pytest.mark.parametrize("keeps", [False, True])
def test_training_on_shards_goes_the_same_way_as_on_features(
    command: Command,
    recipe: dict[str, Any],
    kept: dict[str, Any],
    shards: str,
    tmp_path: Path,
    keeps: bool,
) -> None:
    """The losses of all samples in one batch, where the order of either does not matter."""
    settings = {**recipe, "max_train_steps": 2, "train_batch_size": 24, "caption_dropout": 0.0}
    settings |= {"target_language": ["de", "fr"], "captions_per_pass": 2, "layers": ["mid"]}
    queries = {"english_draws": 1, "query_positions": 3} if keeps else {}
    changes = {"features": kept if keeps else {}, "shards": {**queries, "train_data": shards}}
    found = []
    for name, changed in changes.items():
        succeeded(command("train", output_dir=tmp_path / name, **{**settings, **changed}))
        found.append(losses(tmp_path / name))
    assert found[0] == pytest.approx(found[1], rel=0.25)


def test_kept_queries_train_and_other_ones_are_stale(
    command: Command, recipe: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**recipe, **kept}
    succeeded(command("train", output_dir=tmp_path / "run", **settings, mixed_precision="bf16"))
    assert len(losses(tmp_path / "run")) == 6
    other = {**settings, "english_draws": 1, "output_dir": tmp_path / "other"}
    assert "are stale: english_draws was 2 and is 1" in refusal(command("train", **other))
    plain = {**recipe, "train_data": kept["train_data"], "max_train_steps": 1}
    succeeded(command("train", output_dir=tmp_path / "plain", **plain))
