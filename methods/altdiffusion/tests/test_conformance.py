"""Training the UNet through the command line: it learns, it can be stopped and killed, it goes on
from one stage to the next, and what it gives does not depend on how the work is shared out.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from altdiffusion.method import what_trains

Alt = Callable[..., dict[str, Any]]

GOLDEN = [1.0542188, 0.9892953, 1.1260415, 1.1881773, 1.0491216, 0.7638689]
"""Losses of `whole`; who changes them has changed what is trained."""


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("time_s", "samples_per_s")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def unet_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def whole_recipe(recipe: dict[str, Any], features: str) -> dict[str, Any]:
    validation = {"validation_steps": 3, "validation_data": features}
    return {**recipe, **validation, "use_ema": True, "min_snr_gamma": 5.0}


@pytest.fixture(scope="module")
def whole(alt: Alt, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Six steps of one process that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    answer = alt("train", output_dir=run, **whole_recipe)
    assert answer["codes"] == [0], answer["stderr"]
    return run


def test_golden_trajectory(whole: Path) -> None:
    losses = [row["loss"] for row in rows(whole) if "loss" in row]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)


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
    alt: Alt, recipe: dict[str, Any], sd: str, tmp_path: Path, stage: str, changes: dict[str, Any]
) -> None:
    settings = {**recipe, **changes, "stage": stage, "max_train_steps": 2}
    answer = alt("train", output_dir=tmp_path, **settings)
    assert answer["codes"] == [0], answer["stderr"]
    before, after = unet_of(sd), unet_of(tmp_path / "pipeline")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    trains = what_trains(stage, changes.get("all_attn2", False))
    assert moved == {name for name in before if trains(name)}
    for part in ("vae/diffusion_pytorch_model", "scheduler/scheduler_config"):
        suffix = ".safetensors" if part.startswith("vae") else ".json"
        assert (tmp_path / "pipeline" / (part + suffix)).is_file()
    vae = "vae/diffusion_pytorch_model.safetensors"
    frozen, written = load_file(Path(sd) / vae), load_file(tmp_path / "pipeline" / vae)
    assert all(torch.equal(frozen[name], written[name]) for name in frozen)


def test_training_lowers_the_loss(
    alt: Alt, recipe: dict[str, Any], features: str, tmp_path: Path
) -> None:
    """On a fixed batch with fixed noise; a picture is drawn at each validation."""
    settings = {"max_train_steps": 24, "checkpointing_steps": 24, "stage": "quality_improvement"}
    settings |= {"validation_steps": 12, "validation_data": features, "learning_rate": 3e-3}
    settings |= {"validation_prompts": ["ein Haus 3"], "guidance_scale": 2.0}
    answer = alt("train", output_dir=tmp_path, **{**recipe, **settings})
    assert answer["codes"] == [0], answer["stderr"]
    first = rows(tmp_path)[0]["loss"]
    validations = [row["validation_loss"] for row in rows(tmp_path) if "validation_loss" in row]
    assert validations[1] < validations[0] < first
    pictures = sorted(os.listdir(tmp_path / "pictures"))
    assert pictures == ["validation-000012.png", "validation-000024.png"]


@pytest.fixture(scope="module")
def disturbed(alt: Alt, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """The run of `whole`, stopped by SIGTERM after step 1, killed in step 3 and, several times,
    in the saving of step 4, each time resumed from `latest`.
    """
    run = tmp_path_factory.mktemp("disturbed") / "run"
    stopped = alt("train", {"terminate": [0, 1]}, output_dir=run, **whole_recipe)
    assert stopped["codes"] == [0], stopped["stderr"]
    assert (run / "latest").read_text() == "checkpoint-1\n"
    assert not (run / "pipeline").exists()
    resumed = {**whole_recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    # Of a save's operations 3 has half of the file written; that leaves a folder whose removal 0
    # begins and takes three; 13 is then amid the removal of the oldest checkpoint.
    for fault, latest in [([3], 2), ([4, 3], 2), ([4, 0], 2), ([4, 13], 4)]:
        killed = alt("train", {"die": fault}, **resumed)
        assert killed["codes"] == [-9], (fault, killed["stderr"])
        assert (run / "latest").read_text() == f"checkpoint-{latest}\n", fault
    last = alt("train", **resumed)
    assert last["codes"] == [0], last["stderr"]
    return run


def test_stopped_and_killed_runs_have_the_same_losses_bit_by_bit(
    whole: Path, disturbed: Path
) -> None:
    assert rows(disturbed) == rows(whole)
    name = "pipeline/unet/diffusion_pytorch_model.safetensors"
    assert (disturbed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in disturbed.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


def assert_same_training(run: Path, whole: Path, *, ema: bool = True) -> None:
    """Up to the order of sums: 1e-7 of a gradient, which six steps of Adam make at most a
    thousandth of its steps of 1e-2.
    """
    ours, theirs = unet_of(run / "pipeline"), unet_of(whole / "pipeline")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-5, rtol=1e-4)
    validations = [
        [row["validation_loss"] for row in rows(folder) if "validation_loss" in row]
        for folder in (run, whole)
    ]
    assert validations[0] == pytest.approx(validations[1], rel=1e-4) and len(validations[0]) == 2


def test_two_processes_of_torchrun_train_what_one_does(
    whole: Path, whole_recipe: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**whole_recipe, "train_batch_size": 2, "output_dir": str(tmp_path / "run")}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "altdiffusion.train", "--config", str(tmp_path / "train.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def stage_two(alt: Alt, whole_recipe: dict[str, Any], whole: Path, tmp_path_factory: Any) -> Path:
    """Quality improvement, in one process, from concept alignment's export, without EMA."""
    run = tmp_path_factory.mktemp("two") / "run"
    answer = alt("train", output_dir=run, **second_recipe(whole_recipe, whole))
    assert answer["codes"] == [0], answer["stderr"]
    return run


def second_recipe(whole_recipe: dict[str, Any], whole: Path) -> dict[str, Any]:
    changes = {"stage": "quality_improvement", "unet": whole / "pipeline", "use_ema": False}
    return {**whole_recipe, **changes, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("world_size", "level", "batch", "accumulation"),
    [(2, 2, 2, 1), (2, 3, 2, 1), (1, 0, 1, 4)],
)
def test_sharing_a_step_of_the_whole_unet_among_processes_and_micro_steps_changes_nothing(
    alt: Alt,
    whole: Path,
    stage_two: Path,
    whole_recipe: dict[str, Any],
    tmp_path: Path,
    world_size: int,
    level: int,
    batch: int,
    accumulation: int,
) -> None:
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": level}}))
    settings = second_recipe(whole_recipe, whole)
    settings |= {"deepspeed_config": config, "train_batch_size": batch}
    settings |= {"gradient_accumulation_steps": accumulation, "output_dir": tmp_path / "run"}
    answer = alt("train", {"world_size": world_size}, **settings)
    assert set(answer["codes"]) == {0}, answer["stderr"]
    assert_same_training(tmp_path / "run", stage_two)
    if world_size == 2:
        exporting = {"checkpoint": tmp_path / "run", "output_dir": tmp_path / "exported"}
        answer = alt("export", {"world_size": 2}, **exporting)
        assert set(answer["codes"]) == {0}, answer["stderr"]
        ours, theirs = unet_of(tmp_path / "exported"), unet_of(tmp_path / "run" / "pipeline")
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_moving_average_under_zero_2_and_two_processes_is_that_of_one(
    alt: Alt, whole: Path, whole_recipe: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimization": {"stage": 2}}')
    settings = {**whole_recipe, "deepspeed_config": config, "train_batch_size": 2}
    answer = alt("train", {"world_size": 2}, output_dir=tmp_path / "run", **settings)
    assert set(answer["codes"]) == {0}, answer["stderr"]
    assert_same_training(tmp_path / "run", whole)


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


def test_export_of_a_checkpoint_equals_the_pipeline_written_at_the_end(
    alt: Alt, whole: Path, tmp_path: Path
) -> None:
    for checkpoint in (whole, whole / "checkpoint-6"):
        folder = tmp_path / checkpoint.name
        answer = alt("export", checkpoint=checkpoint, output_dir=folder)
        assert answer["codes"] == [0], answer["stderr"]
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        assert "text_encoder/model.safetensors" in names and "README.md" in names
        for name in names:
            assert (folder / name).read_bytes() == (whole / "pipeline" / name).read_bytes(), name
    state = torch.load(whole / "checkpoint-6" / "deepspeed" / "mp_rank_00_model_states.pt")
    average = unet_of(whole / "pipeline")
    trains = what_trains("concept_alignment")
    assert set(state["module"]) == {name for name in average if trains(name)}
    assert not any(torch.equal(tensor, average[name]) for name, tensor in state["module"].items())


def test_training_on_shards_goes_the_same_way_as_on_features(
    alt: Alt, recipe: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    """With LoRA, whose own file diffusers can load lies beside the merged UNet."""
    settings = {**recipe, "train_data": shards, "max_train_steps": 2, "lora_rank": 2}
    answer = alt("train", output_dir=tmp_path / "run", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run/pipeline/lora/pytorch_lora_weights.safetensors").is_file()
