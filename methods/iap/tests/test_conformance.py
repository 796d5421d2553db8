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

Iap = Callable[..., dict[str, Any]]

GOLDEN = [22.569298, 9.1867199, 6.1987562, 2.0415325, 1.5790722, 1.2533295]
"""Losses of `whole`; who changes them has changed what is trained."""

FILES = (
    "README.md",
    "config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
)


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("time_s", "samples_per_s")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def encoder_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "text_encoder" / "model.safetensors")


def assert_same_files(ours: Path, theirs: Path) -> None:
    found = {str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file()}
    assert found == set(FILES)
    for name in FILES:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole_recipe(recipe: dict[str, Any], features: str) -> dict[str, Any]:
    validation = {"validation_steps": 3, "validation_data": features}
    return {**recipe, **validation, "captions_per_pass": 2}


@pytest.fixture(scope="module")
def whole(iap: Iap, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """Six steps of one process that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    answer = iap("train", output_dir=run, **whole_recipe)
    assert answer["codes"] == [0], answer["stderr"]
    return run


def test_golden_trajectory(whole: Path) -> None:
    losses = [row["loss"] for row in rows(whole) if "loss" in row]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"branch": "local"},
        {"branch": "full", "noise_weight": 0.5, "layers": ["mid", "up"]},
        {"train_encoder": "lora", "lora_rank": 4, "distance": "smooth_l1"},
        {"objective": "text"},
    ],
)
def test_training_lowers_the_loss(
    iap: Iap, recipe: dict[str, Any], features: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """On a fixed batch with fixed noise."""
    settings = {"max_train_steps": 24, "checkpointing_steps": 24, "lr_scheduler": "constant"}
    settings |= {"validation_steps": 12, "validation_data": features, "caption_dropout": 0.0}
    answer = iap("train", output_dir=tmp_path, **{**recipe, **settings, **changes})
    assert answer["codes"] == [0], answer["stderr"]
    first = rows(tmp_path)[0]["loss"]
    validations = [row["validation_loss"] for row in rows(tmp_path) if "validation_loss" in row]
    assert validations[1] < validations[0] < first
    trained, started = encoder_of(tmp_path / "encoder"), recipe["text_encoder"]
    start = load_file(Path(started) / "model.safetensors")["embeddings.word_embeddings.weight"]
    same = torch.equal(trained["roberta.embeddings.word_embeddings.weight"], start)
    assert same == (changes.get("train_encoder") == "lora"), "LoRA leaves the embeddings"


@pytest.fixture(scope="module")
def disturbed(iap: Iap, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """The run of `whole`, stopped by SIGTERM after step 1, killed in step 3 and, several times,
    in the saving of step 4, each time resumed from `latest`.
    """
    run = tmp_path_factory.mktemp("disturbed") / "run"
    stopped = iap("train", {"terminate": [0, 1]}, output_dir=run, **whole_recipe)
    assert stopped["codes"] == [0], stopped["stderr"]
    assert (run / "latest").read_text() == "checkpoint-1\n"
    assert not (run / "encoder").exists()
    resumed = {**whole_recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    # Of a save's operations 3 has half of the file written; that leaves a folder whose removal 0
    # begins and takes three; 13 is then amid the removal of the oldest checkpoint.
    for fault, latest in [([3], 2), ([4, 3], 2), ([4, 0], 2), ([4, 13], 4)]:
        killed = iap("train", {"die": fault}, **resumed)
        assert killed["codes"] == [-9], (fault, killed["stderr"])
        assert (run / "latest").read_text() == f"checkpoint-{latest}\n", fault
    last = iap("train", **resumed)
    assert last["codes"] == [0], last["stderr"]
    return run


def test_stopped_and_killed_runs_have_the_same_losses_bit_by_bit(
    whole: Path, disturbed: Path
) -> None:
    assert rows(disturbed) == rows(whole)
    assert_same_files(disturbed / "encoder", whole / "encoder")
    assert sorted(path.name for path in disturbed.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


def assert_same_training(run: Path, whole: Path) -> None:
    """Up to the order of sums: 1e-7 of a gradient, which six steps of Adam make at most a
    thousandth of its steps of 1e-2. All rows are parallel here, so a mean of means is the mean.
    """
    ours, theirs = encoder_of(run / "encoder"), encoder_of(whole / "encoder")
    for name, tensor in theirs.items():
        if name.endswith("key.bias"):
            continue  # softmax takes no notice of it: its gradient is rounding, which Adam enlarges
        torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=1e-3)
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
    command = [*launch, "-m", "iap.train", "--config", str(tmp_path / "train.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("world_size", "stage", "batch", "accumulation"), [(2, 1, 1, 2), (2, 2, 2, 1), (1, 0, 1, 4)]
)
def test_sharing_a_step_among_processes_and_micro_steps_changes_nothing(
    iap: Iap,
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
    answer = iap("train", {"world_size": world_size}, **settings)
    assert set(answer["codes"]) == {0}, answer["stderr"]
    assert_same_training(tmp_path / "run", whole)
    if stage == 1:
        exporting = {"checkpoint": tmp_path / "run", "output_dir": tmp_path / "exported"}
        answer = iap("export", {"world_size": 2}, **exporting)
        assert set(answer["codes"]) == {0}, answer["stderr"]
        assert_same_files(tmp_path / "exported", tmp_path / "run" / "encoder")


def test_export_of_a_checkpoint_equals_the_encoder_written_at_the_end(
    iap: Iap, whole: Path, tmp_path: Path
) -> None:
    for checkpoint in (whole, whole / "checkpoint-6"):
        folder = tmp_path / checkpoint.name
        answer = iap("export", checkpoint=checkpoint, output_dir=folder)
        assert answer["codes"] == [0], answer["stderr"]
        assert_same_files(folder, whole / "encoder")
    answer = iap("export", checkpoint=whole, output_dir=tmp_path / "with", pipeline="true")
    assert answer["codes"] == [0], answer["stderr"]
    index = json.loads((tmp_path / "with" / "pipeline" / "model_index.json").read_text())
    assert index["text_encoder"] == ["transformers", "AltCLIPTextModel"]
    assert index["tokenizer"] == ["transformers", "XLMRobertaTokenizer"]
    assert encoder_of(tmp_path / "with" / "pipeline").keys() == encoder_of(whole / "encoder").keys()


@pytest.fixture(scope="module")
def kept(iap: Iap, parts: dict[str, Any], shards: str, tmp_path_factory: Any) -> dict[str, Any]:
    """Features with the queries of two English passes a picture, 3 positions of each layer."""
    folder = tmp_path_factory.mktemp("kept")
    queries = {"english_draws": 2, "query_positions": 3}
    places = {"shards": shards, "features_dir": folder, "encode_batch_size": 8}
    answer = iap("features", **places, **queries, **parts)
    assert answer["codes"] == [0], answer["stderr"]
    return {"train_data": folder, **queries}


@pytest.mark.parametrize("keeps", [False, True])
def test_training_on_shards_goes_the_same_way_as_on_features(
    iap: Iap,
    recipe: dict[str, Any],
    kept: dict[str, Any],
    shards: str,
    tmp_path: Path,
    keeps: bool,
) -> None:
    """The losses of all samples in one batch, where the order of either does not matter."""
    settings = {**recipe, "max_train_steps": 2, "train_batch_size": 24, "caption_dropout": 0.0}
    settings |= {"target_language": ["de", "fr"], "captions_per_pass": 2, "layers": ["mid"]}
    if keeps:
        settings |= {**kept, "english_draws": 1, "query_positions": 3}
    losses = []
    for name, data in (("features", None), ("shards", shards)):
        given = settings if data is None else {**settings, "train_data": data}
        if keeps and data is None:
            given = {**given, **kept}
        answer = iap("train", output_dir=tmp_path / name, **given)
        assert answer["codes"] == [0], answer["stderr"]
        losses.append([row["loss"] for row in rows(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=0.25)


def test_kept_queries_train_and_other_ones_are_stale(
    iap: Iap, recipe: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    answer = iap("train", output_dir=tmp_path / "run", **{**recipe, **kept}, mixed_precision="bf16")
    assert answer["codes"] == [0], answer["stderr"]
    assert len(rows(tmp_path / "run")) == 6
    other = {**recipe, **kept, "english_draws": 1}
    answer = iap("train", output_dir=tmp_path / "other", **other)
    assert "are stale: english_draws was 2 and is 1" in answer["stderr"][0]
    plain = {**recipe, "train_data": kept["train_data"], "max_train_steps": 1}
    answer = iap("train", output_dir=tmp_path / "plain", **plain)
    assert answer["codes"] == [0], answer["stderr"]
