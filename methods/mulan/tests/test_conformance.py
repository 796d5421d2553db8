"""Training through the command line: it learns, it can be stopped and killed, and what it gives
does not depend on how the work is shared out.
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

MuLan = Callable[..., dict[str, Any]]

GOLDEN = [2.2457943, 2.4556909, 1.993318, 2.0361452, 1.5352466, 1.650924]
"""Losses of `whole`; who changes them has changed what is trained."""


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("time_s", "samples_per_s")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def whole_recipe(recipe: dict[str, Any], features: str) -> dict[str, Any]:
    changes = {"alignment": "both", "language_weight": 0.5, "use_ema": True}
    return {**recipe, **changes, "validation_steps": 3, "validation_data": features}


@pytest.fixture(scope="module")
def whole(mulan: MuLan, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Six steps of one process that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    answer = mulan("train", output_dir=run, **whole_recipe)
    assert answer["codes"] == [0], answer["stderr"]
    return run


def test_golden_trajectory(whole: Path) -> None:
    losses = [row["loss"] for row in rows(whole) if "loss" in row]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)


@pytest.mark.parametrize("alignment", ["image", "language"])
def test_training_lowers_the_loss(
    mulan: MuLan, recipe: dict[str, Any], features: str, tmp_path: Path, alignment: str
) -> None:
    """On a fixed batch with fixed noise; a picture is drawn at each validation."""
    settings = {"max_train_steps": 24, "learning_rate": 2e-2, "checkpointing_steps": 24}
    settings |= {"validation_steps": 12, "validation_data": features}
    settings |= {"validation_prompts": ["house 3"], "guidance_scale": 2.0, "alignment": alignment}
    answer = mulan(
        "train", output_dir=tmp_path, **{**recipe, **settings, "lr_scheduler": "constant"}
    )
    assert answer["codes"] == [0], answer["stderr"]
    first = rows(tmp_path)[0]["loss"]
    validations = [row["validation_loss"] for row in rows(tmp_path) if "validation_loss" in row]
    assert validations[1] < validations[0] < first
    pictures = sorted(os.listdir(tmp_path / "pictures"))
    assert pictures == ["validation-000012.png", "validation-000024.png"]


@pytest.fixture(scope="module")
def disturbed(mulan: MuLan, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """The run of `whole`, stopped by SIGTERM after step 1, killed in step 3 and, several times,
    in the saving of step 4, each time resumed from `latest`.
    """
    run = tmp_path_factory.mktemp("disturbed") / "run"
    stopped = mulan("train", {"terminate": [0, 1]}, output_dir=run, **whole_recipe)
    assert stopped["codes"] == [0], stopped["stderr"]
    assert (run / "latest").read_text() == "checkpoint-1\n"
    assert not (run / "adapter").exists()
    resumed = {**whole_recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    # Of a save's operations 3 has half of the file written; that leaves a folder whose removal 0
    # begins and takes three; 13 is then amid the removal of the oldest checkpoint.
    for fault, latest in [([3], 2), ([4, 3], 2), ([4, 0], 2), ([4, 13], 4)]:
        killed = mulan("train", {"die": fault}, **resumed)
        assert killed["codes"] == [-9], (fault, killed["stderr"])
        assert (run / "latest").read_text() == f"checkpoint-{latest}\n", fault
    last = mulan("train", **resumed)
    assert last["codes"] == [0], last["stderr"]
    return run


def test_stopped_and_killed_runs_have_the_same_losses_bit_by_bit(
    whole: Path, disturbed: Path
) -> None:
    assert rows(disturbed) == rows(whole)
    for name in ("config.json", "model.safetensors"):
        assert (disturbed / "adapter" / name).read_bytes() == (
            whole / "adapter" / name
        ).read_bytes()
    assert sorted(path.name for path in disturbed.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


def assert_same_training(run: Path, whole: Path) -> None:
    """Up to the order of sums: 1e-7 of a gradient, which six steps of Adam make at most a
    thousandth of its steps of 1e-2. All rows have a teacher, so a mean of means is the mean.
    """
    ours, theirs = adapter_of(run / "adapter"), adapter_of(whole / "adapter")
    for name, tensor in theirs.items():
        found = ours[name]
        if name.endswith("in_proj_bias"):
            # A bias of the keys shifts all scores of a query alike: its gradient is rounding, of
            # which Adam makes whole steps. Queries and values remain.
            found, tensor = (torch.cat(part.chunk(3)[::2]) for part in (found, tensor))
        torch.testing.assert_close(found, tensor, atol=1e-5, rtol=1e-4)
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
    command = [*launch, "-m", "mulan.train", "--config", str(tmp_path / "train.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("world_size", "stage", "batch", "accumulation"), [(2, 1, 1, 2), (1, 0, 1, 4)]
)
def test_sharing_a_step_among_processes_and_micro_steps_changes_nothing(
    mulan: MuLan,
    whole: Path,
    whole_recipe: dict[str, Any],
    tmp_path: Path,
    world_size: int,
    stage: int,
    batch: int,
    accumulation: int,
) -> None:
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    settings = {**whole_recipe, "deepspeed_config": config, "train_batch_size": batch}
    settings |= {"gradient_accumulation_steps": accumulation, "output_dir": tmp_path / "run"}
    answer = mulan("train", {"world_size": world_size}, **settings)
    assert set(answer["codes"]) == {0}, answer["stderr"]
    assert_same_training(tmp_path / "run", whole)
    if world_size == 2 and stage == 1:
        exported = tmp_path / "exported"
        exporting = {"checkpoint": tmp_path / "run", "output_dir": exported}
        answer = mulan("export", {"world_size": 2}, **exporting)
        assert set(answer["codes"]) == {0}, answer["stderr"]
        files = [folder / "model.safetensors" for folder in (exported, tmp_path / "run/adapter")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_export_of_a_checkpoint_equals_the_adapter_written_at_the_end(
    mulan: MuLan, whole: Path, tmp_path: Path
) -> None:
    for checkpoint in (whole, whole / "checkpoint-6"):
        folder = tmp_path / checkpoint.name
        answer = mulan("export", checkpoint=checkpoint, output_dir=folder)
        assert answer["codes"] == [0], answer["stderr"]
        for name in ("config.json", "model.safetensors", "README.md"):
            assert (folder / name).read_bytes() == (whole / "adapter" / name).read_bytes()
    state = torch.load(whole / "checkpoint-6" / "deepspeed" / "mp_rank_00_model_states.pt")
    average = adapter_of(whole / "adapter")
    last = state["module"]
    assert not any(torch.equal(last[name], tensor) for name, tensor in average.items())


def test_training_on_shards_goes_the_same_way_as_on_features(
    mulan: MuLan, recipe: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    settings = {**recipe, "train_data": shards, "max_train_steps": 2, "mixed_precision": "bf16"}
    answer = mulan("train", output_dir=tmp_path / "run", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
    assert set(os.listdir(tmp_path / "run" / "adapter")) == {
        "README.md",
        "config.json",
        "model.safetensors",
    }


def test_a_published_adapter_is_gone_on_with(
    mulan: MuLan, recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """As from 512 to 1024 pixels: with a learning rate of 0 it is what it was."""
    settings = {**recipe, "init_adapter": whole / "adapter", "learning_rate": 0.0}
    settings |= {"lr_scheduler": "constant", "max_train_steps": 1, "output_dir": tmp_path / "run"}
    answer = mulan("train", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    before = adapter_of(whole / "adapter")
    after = adapter_of(tmp_path / "run" / "adapter")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    answer = mulan("train", **{**settings, "num_queries": 9, "output_dir": tmp_path / "other"})
    assert answer["codes"] == [2]
    assert "has num_queries 16 and this run 9" in answer["stderr"][0]
