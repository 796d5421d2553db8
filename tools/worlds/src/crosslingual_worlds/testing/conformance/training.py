"""Training through the command line: it learns, it can be stopped and killed, and what it gives
does not depend on how the work is shared out.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("time_s", "samples_per_s")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def losses(run: Path) -> list[float]:
    """The losses by step."""
    return [row["loss"] for row in rows(run) if "loss" in row]


def validations(run: Path, name: str = "validation_loss") -> list[float]:
    """A validation's numbers, in order."""
    return [row[name] for row in rows(run) if name in row]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


Kills = Sequence[tuple[list[int], int]]


def disturb(
    command: Command,
    settings: dict[str, Any],
    kills: Kills,
    exported: str,
    verb: str = "train",
) -> Path:
    """Stops a run by SIGTERM after step 1, then kills it again and again, resuming it each time;
    returns its folder when it has reached its end.

    Args:
        command: of the fixture.
        settings: of the run, `output_dir` among them.
        kills: step and file operation of rank 0's deaths, and the checkpoint that is the latest
            afterwards.
        exported: the folder that only the end of a run writes.
        verb: that trains.
    """
    run = Path(settings["output_dir"])
    succeeded(command(verb, {"terminate": [0, 1]}, **settings))
    assert (run / "latest").read_text() == "checkpoint-1\n"
    assert not (run / exported).exists()
    resumed = {**settings, "resume_from_checkpoint": "latest"}
    for fault, latest in kills:
        killed = command(verb, {"die": fault}, **resumed)
        assert killed["codes"] == [-9], (fault, killed["stderr"])
        assert (run / "latest").read_text() == f"checkpoint-{latest}\n", fault
    succeeded(command(verb, **resumed))
    return run


def assert_dry_run(
    command: Command, settings: Mapping[str, Any], folder: Path, verb: str = "train"
) -> None:
    """Asserts that a dry run of six steps says time and memory, and that an empty folder, for its
    run and its temporary files, is empty afterwards.
    """
    settings = {**settings, "output_dir": folder / "run", "dry_run": True}
    done = succeeded(command(verb, {"temporary": str(folder)}, **settings))
    pattern = (
        r"a step of \d+ samples takes .* s, 6 steps about .* GB a process; nothing was written"
    )
    assert re.search(pattern, done["stdout"][0]), done["stdout"][0]
    assert not list(folder.iterdir())


class Training:
    """Tests of a method's training.

    Attributes:
        golden: losses of `whole`; a change of them is a change of what is trained.
        files: every file of an export.
        kills: see `disturb`. Of a save's operations 6 has half of the file written; that leaves a
            folder whose removal 0 begins and takes four; 18 is then amid the removal of the oldest
            checkpoint.
        learns: changes of the recipe under which the loss falls, a dictionary a test.
        shares: processes, ZeRO stage, batch and accumulation that train what `alone` did.
        atol: of trained tensors: an order of sums moves a gradient by 1e-7, which six steps of Adam
            make at most a thousandth of its steps of 1e-2.
        rtol: likewise.
        torchrun_changes: of the whole recipe where two processes of torchrun train.
        averages: whether `whole` exports a moving average.
        num_trainable: parameters of a checkpoint, which holds no frozen ones.
    """

    golden: ClassVar[Sequence[float]]
    files: ClassVar[set[str]] = {"README.md", "config.json", "model.safetensors"}
    kills: ClassVar[Kills] = (
        ([3], 2),
        ([4, 6], 2),
        ([4, 0], 2),
        ([4, 18], 4),
    )
    learns: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    shares: ClassVar[Sequence[tuple[int, int, int, int]]] = (
        (2, 1, 1, 2),
        (2, 2, 2, 1),
        (1, 0, 1, 4),
    )
    atol: ClassVar[float] = 1e-5
    rtol: ClassVar[float] = 1e-4
    torchrun_changes: ClassVar[Mapping[str, Any]] = {"train_batch_size": 2}
    averages: ClassVar[bool] = False
    num_trainable: ClassVar[int | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test a way of learning and of sharing."""
        if "learning" in metafunc.fixturenames:
            metafunc.parametrize("learning", self.learns, ids=str)
        if "share" in metafunc.fixturenames:
            metafunc.parametrize("share", self.shares, ids=str)

    def comparable(self, name: str, tensor: Tensor) -> Tensor | None:
        """What of a trained tensor must agree where sums run in another order; None for nothing.

        A bias of attention's keys has no gradient in truth: Adam takes whole steps on rounding.
        """
        return None if name.endswith("key.bias") else tensor

    def trained_tensors(self, subject: Subject, folder: Path) -> dict[str, Tensor]:
        """What an export holds that was trained."""
        found: dict[str, Tensor] = {}
        for name in subject.weights:
            found |= load_file(folder / name)
        return found

    def assert_same_training(self, subject: Subject, run: Path, expected: Path) -> None:
        """Asserts that two runs trained the same up to the order of sums."""
        ours = self.trained_tensors(subject, run / subject.exported)
        theirs = self.trained_tensors(subject, expected / subject.exported)
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            wanted = self.comparable(name, tensor)
            if wanted is not None:
                found = self.comparable(name, ours[name])
                torch.testing.assert_close(found, wanted, atol=self.atol, rtol=self.rtol)
        values, wanted = validations(run), validations(expected)
        assert values == pytest.approx(wanted, rel=1e-4) and len(values) == len(wanted)

    @pytest.fixture
    def alone(self, whole: Path) -> Path:
        """The run of one process that shared ones are compared with."""
        return whole

    @pytest.fixture
    def alone_recipe(self, whole_recipe: dict[str, Any]) -> dict[str, Any]:
        """The settings of `alone`."""
        return whole_recipe

    def test_golden_trajectory(self, whole: Path) -> None:
        assert losses(whole) == pytest.approx(self.golden, rel=1e-4)

    def test_training_lowers_the_loss(
        self,
        subject: Subject,
        command: Command,
        recipe: dict[str, Any],
        features: str,
        tmp_path: Path,
        learning: Mapping[str, Any],
    ) -> None:
        """On a fixed batch with fixed noise; a picture is drawn at each validation if asked for."""
        settings = {**recipe, "max_train_steps": 24, "checkpointing_steps": 24}
        settings |= {
            "validation_steps": 12,
            "validation_data": features,
            "lr_scheduler": "constant",
        }
        succeeded(command("train", output_dir=tmp_path, **{**settings, **learning}))
        before, after = validations(tmp_path)
        assert after < before < losses(tmp_path)[0]
        if "validation_prompts" in learning:
            pictures = sorted(os.listdir(tmp_path / "pictures"))
            assert pictures == ["validation-000012.png", "validation-000024.png"]
        self.check_learnt(recipe, learning, tmp_path / subject.exported)

    def check_learnt(
        self, recipe: Mapping[str, Any], learning: Mapping[str, Any], folder: Path
    ) -> None:
        """What a method asserts of an export after it has learnt."""

    def test_stopped_and_killed_runs_have_the_same_losses_bit_by_bit(
        self,
        subject: Subject,
        command: Command,
        whole: Path,
        whole_recipe: dict[str, Any],
        tmp_path: Path,
    ) -> None:
        """Stopped by SIGTERM after step 1, killed in step 3 and, several times, in the saving of
        step 4, each time resumed from `latest`.
        """
        settings = {**whole_recipe, "output_dir": tmp_path / "run"}
        run = disturb(command, settings, self.kills, subject.exported)
        assert rows(run) == rows(whole)
        assert files_of(run / subject.exported) == files_of(whole / subject.exported)
        kept = sorted(path.name for path in run.glob("checkpoint-*"))
        assert kept == ["checkpoint-4", "checkpoint-6"]

    def test_two_processes_of_torchrun_train_what_one_does(
        self, subject: Subject, alone: Path, alone_recipe: dict[str, Any], tmp_path: Path
    ) -> None:
        settings = {**alone_recipe, **self.torchrun_changes, "output_dir": str(tmp_path / "run")}
        (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
        has_main = importlib.util.find_spec(f"{subject.name}.__main__")
        verb = [subject.name, "train"] if has_main else [f"{subject.name}.train"]
        launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", *verb]
        command = [sys.executable, "-m", *launch, "--config", str(tmp_path / "train.yaml")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.assert_same_training(subject, tmp_path / "run", alone)

    def test_sharing_a_step_among_processes_and_micro_steps_changes_nothing(
        self,
        subject: Subject,
        command: Command,
        alone: Path,
        alone_recipe: dict[str, Any],
        tmp_path: Path,
        share: tuple[int, int, int, int],
    ) -> None:
        """One process exports the checkpoint of two, to the last bit, whatever ZeRO's stage."""
        world_size, stage, batch, accumulation = share
        config, run = tmp_path / "ds.json", tmp_path / "run"
        config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        settings = {**alone_recipe, "deepspeed_config": config, "train_batch_size": batch}
        settings |= {"gradient_accumulation_steps": accumulation, "output_dir": run}
        succeeded(command("train", {"world_size": world_size}, **settings))
        self.assert_same_training(subject, run, alone)
        exporting = {"checkpoint": run, "output_dir": tmp_path / "exported"}
        succeeded(command("export", **exporting))
        assert files_of(tmp_path / "exported") == files_of(run / subject.exported)

    def test_a_dry_run_says_time_and_memory_and_writes_nothing(
        self, command: Command, whole_recipe: dict[str, Any], tmp_path: Path
    ) -> None:
        assert_dry_run(command, whole_recipe, tmp_path)

    def test_export_of_a_checkpoint_equals_what_was_written_at_the_end(
        self, subject: Subject, command: Command, whole: Path, tmp_path: Path
    ) -> None:
        for checkpoint in (whole, whole / "checkpoint-6"):
            folder = tmp_path / checkpoint.name
            succeeded(command("export", checkpoint=checkpoint, output_dir=folder))
            assert files_of(folder) == files_of(whole / subject.exported)
            assert set(files_of(folder)) == {*self.files, "crosslingual.json"}

    def test_a_checkpoint_holds_what_trains_and_no_frozen_part(
        self, subject: Subject, whole: Path
    ) -> None:
        """Where an average is exported, it is not what the module itself had come to."""
        path = whole / "checkpoint-6" / "deepspeed" / "mp_rank_00_model_states.pt"
        state = torch.load(path)["module"]
        if self.num_trainable is not None:
            assert sum(tensor.numel() for tensor in state.values()) == self.num_trainable
        if self.averages:
            average = self.trained_tensors(subject, whole / subject.exported)
            assert not any(torch.equal(state[name], average[name]) for name in state)

    def test_training_on_shards_goes_the_same_way_as_on_features(
        self,
        subject: Subject,
        command: Command,
        recipe: dict[str, Any],
        shards: str,
        tmp_path: Path,
    ) -> None:
        """In bf16, and the export is fp32."""
        settings = {**recipe, "train_data": shards, "max_train_steps": 2, "mixed_precision": "bf16"}
        succeeded(command("train", output_dir=tmp_path / "run", **settings))
        assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
        folder = tmp_path / "run" / subject.exported
        assert set(files_of(folder)) == {*self.files, "crosslingual.json"}
        assert {t.dtype for t in self.trained_tensors(subject, folder).values()} == {torch.float32}
