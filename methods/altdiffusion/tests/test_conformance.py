"""Training the UNet: what every method promises, and how one stage goes on from the other."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from altdiffusion.method import what_trains
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.training import rows
from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded


def unet_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "unet" / "diffusion_pytorch_model.safetensors")


class TestTraining(conformance.Training):
    golden = (1.0542188, 0.9892953, 1.1260415, 1.1881773, 1.0491216, 0.7638689)
    files = {
        "README.md",
        "altdiffusion.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    learns = (
        {
            "stage": "quality_improvement",
            "learning_rate": 3e-3,
            "validation_prompts": ["ein Haus 3"],
            "guidance_scale": 2.0,
        },
    )
    shares = ((2, 1, 2, 1), (2, 2, 2, 1), (2, 3, 2, 1), (1, 0, 1, 4))
    averages = True
    num_trainable = 2 * 16 * (8 + 16 + 8 + 8)

    @pytest.fixture
    def alone(self, stage_two: Path) -> Path:
        """The whole UNet is what processes and micro-steps share."""
        return stage_two

    @pytest.fixture
    def alone_recipe(self, second_recipe: dict[str, Any]) -> dict[str, Any]:
        return second_recipe

    def check_learnt(
        self, recipe: Mapping[str, Any], learning: Mapping[str, Any], folder: Path
    ) -> None:
        assert json.loads((folder / "altdiffusion.json").read_text())["stage"] == learning["stage"]

    def test_a_moving_average_under_zero_2_and_two_processes_is_that_of_one(
        self,
        subject: Subject,
        command: Command,
        whole: Path,
        whole_recipe: dict[str, Any],
        tmp_path: Path,
    ) -> None:
        config = tmp_path / "ds.json"
        config.write_text('{"zero_optimization": {"stage": 2}}')
        settings = {**whole_recipe, "deepspeed_config": config, "train_batch_size": 2}
        succeeded(command("train", {"world_size": 2}, output_dir=tmp_path / "run", **settings))
        self.assert_same_training(subject, tmp_path / "run", whole)


@pytest.fixture(scope="module")
def second_recipe(whole_recipe: dict[str, Any], whole: Path) -> dict[str, Any]:
    changes = {"stage": "quality_improvement", "unet": str(whole / "pipeline"), "use_ema": False}
    return {**whole_recipe, **changes, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def stage_two(command: Command, second_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Quality improvement, in one process, from concept alignment's export, without EMA."""
    run = tmp_path_factory.mktemp("two") / "run"
    succeeded(command("train", output_dir=run, **second_recipe))
    return run


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("concept_alignment", {}),
        ("concept_alignment", {"all_attn2": True}),
        ("quality_improvement", {"gradient_checkpointing": True}),
        ("guidance_tuning", {"mixed_precision": "bf16"}),
    ],
)
def test_exactly_what_the_stage_trains_moves(
    command: Command,
    recipe: dict[str, Any],
    sd: str,
    tmp_path: Path,
    stage: str,
    changes: dict[str, Any],
) -> None:
    settings = {**recipe, **changes, "stage": stage, "max_train_steps": 2}
    succeeded(command("train", output_dir=tmp_path, **settings))
    before, after = unet_of(sd), unet_of(tmp_path / "pipeline")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    trains = what_trains(stage, changes.get("all_attn2", False))
    assert moved == {name for name in before if trains(name)}
    vae = "vae/diffusion_pytorch_model.safetensors"
    frozen, written = load_file(Path(sd) / vae), load_file(tmp_path / "pipeline" / vae)
    assert all(torch.equal(frozen[name], written[name]) for name in frozen)


def test_a_stage_starts_from_the_former_ones_export(whole: Path, stage_two: Path, sd: str) -> None:
    """Its first loss is that of the trained UNet, and keys and values have moved twice."""
    first, base = unet_of(whole / "pipeline"), unet_of(sd)
    second = unet_of(stage_two / "pipeline")
    trains = what_trains("concept_alignment")
    for name, tensor in second.items():
        assert not torch.equal(tensor, first[name])
        assert torch.equal(first[name], base[name]) != trains(name)
    config = json.loads((stage_two / "pipeline" / "altdiffusion.json").read_text())
    assert config["stage"] == "quality_improvement"
    state = torch.load(whole / "checkpoint-6" / "deepspeed" / "mp_rank_00_model_states.pt")
    assert set(state["module"]) == {name for name in first if trains(name)}


def test_lora_trains_on_shards_and_its_own_file_lies_beside_the_merged_unet(
    command: Command, recipe: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    settings = {**recipe, "train_data": shards, "max_train_steps": 2, "lora_rank": 2}
    succeeded(command("train", output_dir=tmp_path / "run", **settings))
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run/pipeline/lora/pytorch_lora_weights.safetensors").is_file()
