"""`Run` through real DeepSpeed on CPU: one writer, the same settings, means over ranks, stops."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from crosslingual.training.checkpoint import settings_file, trained_state
from crosslingual.training.folder import check_resumable, lock_folder
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import RunSettings

TinyRun = Callable[..., dict[str, Any]]
Train = Callable[..., dict[str, Any]]
ALONE = Ranks(0, 1, 0, torch.device("cpu"))


@pytest.fixture
def train(tiny_run: TinyRun, tmp_path: Path) -> Train:
    """Trains by `Run` in `tmp_path / "run"`, in as many processes as asked."""

    def run(world_size: int = 1, **settings: Any) -> dict[str, Any]:
        place = {"output_dir": str(tmp_path / "run")}
        return tiny_run(world_size=world_size, settings={**place, **settings})

    return run


def succeeded(answer: dict[str, Any]) -> list[dict[str, Any]]:
    assert set(answer["codes"]) == {0}, answer["stderr"]
    return answer["answers"]


def refusal(answer: dict[str, Any]) -> str:
    assert set(answer["codes"]) == {2}, answer
    assert all(line.count("\n") == 1 for line in answer["stderr"])
    return answer["stderr"][0]


def rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("time_s", "samples_per_s")} for row in lines]


def test_a_stopped_run_resumes_bitwise_with_its_moving_average(
    train: Train, tmp_path: Path
) -> None:
    """After SIGTERM the step is finished, validated and saved, and nothing is exported."""
    common = {"use_ema": True, "ema_decay": 0.9, "gradient_accumulation_steps": 2}
    common |= {"validation_steps": 3, "validation_data": "x"}
    [whole] = succeeded(train(output_dir=str(tmp_path / "whole"), **common))
    [stopped] = succeeded(train(terminate=[0, 3], **common))
    run = tmp_path / "run"
    assert stopped["path"] == str(run) and not stopped["exported"]
    assert (run / "latest").read_text() == "checkpoint-3\n"
    [resumed] = succeeded(train(resume_from_checkpoint="latest", **common))
    assert stopped["losses"] + resumed["losses"] == whole["losses"]
    assert resumed["exported"] == whole["exported"]
    assert resumed["path"] == str(run / "export")
    assert rows(run) == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(run) if "validated" in row] == [3, 6]
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, 7))


@pytest.mark.parametrize("use_ema", [False, True])
def test_the_export_of_two_processes_at_zero_1_is_what_its_checkpoint_holds(
    train: Train, tmp_path: Path, use_ema: bool
) -> None:
    """Rank 0 alone writes; the path comes to all; losses are reported as means over the ranks."""
    config = tmp_path / "zero1.json"
    config.write_text('{"zero_optimization": {"stage": 1}}')
    settings = {"deepspeed_config": str(config), "train_batch_size": 2, "use_ema": use_ema}
    first, second = succeeded(train(2, **settings))
    assert first["path"] == second["path"] == str(tmp_path / "run" / "export")
    assert first["exported"] and not second["exported"]
    state = trained_state(tmp_path / "run")
    assert {name: tensor.tolist() for name, tensor in state.items()} == first["exported"]
    means = [sum(pair) / 2 for pair in zip(first["losses"], second["losses"], strict=True)]
    assert first["losses"] != second["losses"]
    for row, mean in zip(rows(tmp_path / "run"), means, strict=True):
        assert row["loss"] == row["mse"] == pytest.approx(mean, rel=1e-12)


def test_a_folder_has_one_writer(train: Train, tmp_path: Path) -> None:
    """The second is refused, on every rank; a lock does not outlive its process."""
    file = lock_folder(tmp_path / "run", ALONE)
    line = refusal(train(2, train_batch_size=2))
    assert "is being written by process" in line and "choose another --output_dir" in line
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    file.close()
    succeeded(train())


@pytest.fixture(scope="module")
def begun(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that may take more."""
    run = tmp_path_factory.mktemp("begun") / "run"
    data = run.parent / "data"
    data.mkdir()
    succeeded(tiny_run(settings={"output_dir": str(run), "train_data": str(data)}))
    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.1}, "learning_rate was 0.05 and is 0.1"),
        ({"seed": 1, "dropout": 0.1}, "dropout was 0.3 and is 0.1; seed was 0 and is 1"),
        ({"train_batch_size": 8}, r"a step had 4 samples \(train_batch_size x .*\) and has 8"),
        ({"train_data": "{run}"}, "train_data was"),
        ({"adam_weight_decay": 0.5}, "adam_weight_decay was 0.01 and is 0.5"),
        ({"lr_scheduler": "cosine"}, "lr_scheduler was polynomial and is cosine"),
        ({"mixed_precision": "bf16"}, "mixed_precision was no and is bf16"),
        ({"use_ema": True}, "use_ema was False and is True"),
        ({"nan_at": [1, 9], "seed": 1}, "seed was 0 and is 1"),
        ({"max_train_steps": 5}, "--max_train_steps is 5 and .*checkpoint-6 has taken 6"),
    ],
)
def test_a_resumed_run_keeps_its_settings(
    tiny_run: TinyRun, begun: Path, changes: dict[str, Any], message: str
) -> None:
    common = {"output_dir": str(begun), "train_data": str(begun.parent / "data")}
    changes = {k: v.format(run=begun) if isinstance(v, str) else v for k, v in changes.items()}
    settings = {**common, "resume_from_checkpoint": "latest", **changes}
    line = refusal(tiny_run(settings=settings))
    assert re.search(message, line), line


def test_a_setting_that_the_checkpoint_did_not_know_was_at_its_default(
    begun: Path, tmp_path: Path
) -> None:
    """An older version's: a run does not go on with another objective unnoticed."""

    @dataclass
    class Later(RunSettings):
        objective: str = "former"

    checkpoint = tmp_path / "checkpoint-6"
    shutil.copytree(begun / "checkpoint-6", checkpoint)
    known = yaml.safe_load((checkpoint / "settings.yaml").read_text())
    names = {field.name for field in fields(Later)}
    same = {name: value for name, value in known.items() if name in names}
    assert check_resumable(Later(**same), checkpoint, ALONE) == 6
    with pytest.raises(ValueError, match="objective was former and is other"):
        check_resumable(Later(**same, objective="other"), checkpoint, ALONE)


@pytest.mark.parametrize("text", ["a: [", "- a\n", "", "train_batch_size: many\n", "!!python/x 1"])
def test_broken_settings_of_an_earlier_version_are_one_line(
    begun: Path, tmp_path: Path, text: str
) -> None:
    """Later versions hash the file: one that is cut short is refused before it is read."""
    checkpoint = tmp_path / "checkpoint-6"
    shutil.copytree(begun / "checkpoint-6", checkpoint)
    (checkpoint / "settings.yaml").write_text(text)
    with pytest.raises(ValueError, match="settings.yaml is (truncated|damaged)"):
        check_resumable(RunSettings(), checkpoint, ALONE)
    manifest = json.loads((checkpoint / "checkpoint.json").read_text())
    for part in ("files", "sha256"):
        del manifest[part]["settings.yaml"]
    (checkpoint / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"\A[^\n]*settings.yaml is broken \([^\n]*\Z"):
        check_resumable(RunSettings(), checkpoint, ALONE)


def test_a_resumed_run_may_take_more_steps_in_more_processes_with_moved_data(
    train: Train, tmp_path: Path
) -> None:
    """Two processes of two rows have the four rows of one; data that is gone may have moved."""
    succeeded(train(train_data=str(tmp_path / "gone")))
    changes = {"train_batch_size": 2, "max_train_steps": 8, "checkpointing_steps": 4}
    changes |= {"train_data": str(tmp_path), "report_to": "none", "checkpoints_total_limit": 9}
    answer = train(2, resume_from_checkpoint="latest", **changes)
    first, _ = succeeded(answer)
    assert len(first["losses"]) == 2
    said = "max_train_steps was 6 and is 8"
    assert said in answer["stdout"][0] and said not in answer["stdout"][1]
    checkpoint = tmp_path / "run" / "checkpoint-8"
    saved = yaml.safe_load(settings_file(checkpoint).read_text())
    assert saved["max_train_steps"] == 8 and saved["train_batch_size"] == 2
    assert settings_file(tmp_path / "run" / "old") == tmp_path / "run" / "settings.yaml"


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_and_names_its_samples(
    train: Train,
) -> None:
    answer = train(2, train_batch_size=2, nan_at=[1, 3])
    line = refusal(answer)
    assert line.startswith("error: the loss of step 3 is nan (mse "), line
    assert "on samples 1-2;" in line and answer["stderr"][1] == line


def test_what_cannot_work_is_refused_before_anything_is_loaded(
    train: Train, tmp_path: Path
) -> None:
    assert "validation_steps needs --validation_data" in refusal(train(validation_steps=2))
    config = tmp_path / "zero3.json"
    config.write_text('{"zero_optimization": {"stage": 3}}')
    line = refusal(train(use_ema=True, deepspeed_config=str(config)))
    assert "at ZeRO stage 3 no process holds whole weights to average" in line
    assert not (tmp_path / "run").exists()
