"""Checkpoints: exact resume, and nothing lost to kill -9, a full disk or a foreign file."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum

from crosslingual.training.checkpoint import find_checkpoint, resolve_checkpoint, trained_state

TinyRun = Callable[..., dict[str, Any]]


def stage(number: int) -> dict[str, Any]:
    return {"zero_optimization": {"stage": number}}


def losses(run: dict[str, Any]) -> list[list[float]]:
    assert set(run["codes"]) == {0}, run["stderr"]
    return [answer["losses"] for answer in run["answers"]]


def tail(run: dict[str, Any], start: int) -> list[list[float]]:
    return [values[start:] for values in losses(run)]


@pytest.mark.parametrize(
    ("number", "world_size", "accumulate"), [(0, 1, 1), (1, 1, 2), (0, 2, 1), (1, 2, 1), (2, 2, 1)]
)
def test_resume_is_bitwise(
    tiny_run: TinyRun, tmp_path: Path, number: int, world_size: int, accumulate: int
) -> None:
    common = {
        "config": stage(number),
        "world_size": world_size,
        "accumulate": accumulate,
        "dropout": 0.3,
    }
    whole = tiny_run(output_dir=tmp_path / "whole", save_every=9, **common)
    tiny_run(output_dir=tmp_path / "parts", stop_at=3, **common)
    parts = tiny_run(output_dir=tmp_path / "parts", resume="latest", **common)
    assert losses(parts) == tail(whole, 2 * accumulate)
    assert parts["answers"][0]["note"] == "step 2"
    assert parts["answers"][0]["weights"] == whole["answers"][0]["weights"]


def test_kill_9_at_every_file_operation_of_a_save_loses_nothing(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Step 4 is saved while `latest` names step 2; the run dies in it, then resumes."""
    common = {"total_limit": 1, "dropout": 0.3}
    whole = tiny_run(output_dir=tmp_path / "whole", **common)
    operations = whole["answers"][0]["operations"]
    assert operations > 10
    resumed_from = []
    for operation in range(operations):
        output_dir = tmp_path / str(operation)
        killed = tiny_run(output_dir=output_dir, die=[4, operation, 0], **common)
        assert killed["codes"] == [-9]
        step = int((output_dir / "latest").read_text().removeprefix("checkpoint-"))
        resumed = tiny_run(output_dir=output_dir, resume="latest", **common)
        assert losses(resumed) == tail(whole, step), f"killed at operation {operation}"
        assert sorted(os.listdir(output_dir)) == ["checkpoint-6", "latest"]
        resumed_from.append(step)
    assert sorted(set(resumed_from)) == [2, 4]
    assert resumed_from == sorted(resumed_from)


@pytest.mark.parametrize("operation", [0, 1])
def test_kill_9_of_another_rank_while_it_saves_loses_nothing(
    tiny_run: TinyRun, tmp_path: Path, operation: int
) -> None:
    """Rank 1 dies before, or with half of, its part of the optimiser's state on disk."""
    common = {"config": stage(1), "world_size": 2}
    whole = tiny_run(output_dir=tmp_path / "whole", **common)
    killed = tiny_run(output_dir=tmp_path / "run", die=[4, operation, 1], **common)
    assert killed["codes"][1] == -9 and killed["codes"][0] != 0
    assert (tmp_path / "run" / "latest").read_text() == "checkpoint-2\n"
    resumed = tiny_run(output_dir=tmp_path / "run", resume="latest", **common)
    assert losses(resumed) == tail(whole, 2)


def test_a_full_disk_is_one_line_and_the_old_checkpoint_is_intact(
    tiny_run: TinyRun, tmp_path: Path, small_disk: Path
) -> None:
    whole = tiny_run(output_dir=tmp_path / "whole", save_every=3, width=64)
    output_dir = small_disk / "run"
    tiny_run(output_dir=output_dir, width=64, save_every=3, stop_at=3)
    ballast = small_disk / "ballast"
    for room in (0, 8192, 20480):
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"\0" * (free - room))
        full = tiny_run(output_dir=output_dir, width=64, save_every=3, resume="latest")
        assert full["codes"] == [2], full["stderr"]
        error = full["stderr"][0]
        assert error.startswith("error: the disk is full: ") and error.count("\n") == 1
        assert f"{output_dir}/checkpoint-3 is intact" in error
        assert sorted(os.listdir(output_dir)) == ["checkpoint-3", "latest"]
        ballast.unlink()
    resumed = tiny_run(output_dir=output_dir, width=64, save_every=3, resume="latest")
    assert losses(resumed) == tail(whole, 3)


@pytest.fixture(scope="module")
def saved(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes at stage 1 with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("saved")
    losses(tiny_run(output_dir=folder, config=stage(1), world_size=2, stop_at=4))
    return folder


def refusal(tiny_run: TinyRun, folder: Path, **request: Any) -> str:
    request = {"config": stage(1), "world_size": 2, "resume": "latest", **request}
    run = tiny_run(output_dir=folder, **request)
    assert set(run["codes"]) == {2}, run["stderr"]
    assert run["stderr"][0].count("\n") == 1
    return run["stderr"][0]


def test_a_checkpoint_of_another_run_is_refused(tiny_run: TinyRun, saved: Path) -> None:
    at_stage = refusal(tiny_run, saved, config=stage(2))
    assert "written by 2 processes at ZeRO stage 1, not 2 at stage 2" in at_stage
    alone = refusal(tiny_run, saved, world_size=1)
    assert "written by 2 processes at ZeRO stage 1, not 1 at stage 1" in alone
    wider = refusal(tiny_run, saved, width=16)
    assert "3 tensors differ, such as inner.bias ([8] there, [16] here)" in wider


def test_a_truncated_or_foreign_checkpoint_is_refused(
    tiny_run: TinyRun, saved: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    shard = next((run / "checkpoint-4" / "deepspeed").glob("*rank_1*optim_states.pt"))
    size = shard.stat().st_size
    os.truncate(shard, size // 2)
    assert f"is truncated ({size // 2} of {size} bytes)" in refusal(tiny_run, run)
    shard.unlink()
    assert f"is truncated (0 of {size} bytes)" in refusal(tiny_run, run)
    manifest = run / "checkpoint-4" / "checkpoint.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 9}))
    assert "has version 9; this program reads 1" in refusal(tiny_run, run)
    manifest.write_text("{")
    assert "checkpoint.json is broken" in refusal(tiny_run, run)
    manifest.unlink()
    assert "holds no checkpoint.json" in refusal(tiny_run, run)


class Hostile:
    """A pickle that makes a file when it is read as Python's pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("pattern", ["*model_states.pt", "*optim_states.pt"])
def test_a_checkpoint_runs_no_code_on_resume_or_export(
    tiny_run: TinyRun, saved: Path, tmp_path: Path, pattern: str
) -> None:
    """Not even where the manifest goes with it, and where the host allows all pickles."""
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    manifest = json.loads((run / "checkpoint-4/checkpoint.json").read_text())
    del manifest["sha256"]  # as earlier versions wrote it
    for file in (run / "checkpoint-4").rglob(pattern):
        torch.save({"module": Hostile(tmp_path / "code ran")}, file)
        manifest["files"][str(file.relative_to(run / "checkpoint-4"))] = file.stat().st_size
    (run / "checkpoint-4/checkpoint.json").write_text(json.dumps(manifest))
    assert "(the code of posix.mkdir); give another checkpoint" in refusal(tiny_run, run)
    with mock.patch.dict(os.environ, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}):
        with pytest.raises(ValueError, match="holds other things than the tensors"):
            trained_state(run)
    assert not (tmp_path / "code ran").exists()


class Member:
    """A pickle by `getattr`, as Python 3.11.0 to 3.11.3 write members of an enum."""

    def __init__(self, of: type, name: str) -> None:
        self.parts = of, name

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self.parts


@pytest.mark.parametrize(
    ("of", "name", "is_read"),
    [(ZeroStageEnum, "gradients", True), (ZeroStageEnum, "mro", False), (LossScaler, "mro", False)],
)
def test_of_getattr_a_checkpoint_may_hold_members_of_the_zero_stage_alone(
    saved: Path, tmp_path: Path, of: type, name: str, is_read: bool
) -> None:
    shutil.copytree(saved, tmp_path / "run")
    folder = tmp_path / "run/checkpoint-4"
    manifest = json.loads((folder / "checkpoint.json").read_text())
    del manifest["sha256"]
    for file in folder.rglob("*model_states.pt"):
        content = torch.load(file, weights_only=False)
        torch.save({**content, "more": Member(of, name)}, file)
        manifest["files"][str(file.relative_to(folder))] = file.stat().st_size
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    if is_read:
        assert trained_state(tmp_path / "run")
    else:
        with pytest.raises(ValueError, match="holds other things than the tensors"):
            trained_state(tmp_path / "run")


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x80\x02"])
def test_files_that_no_checkpoint_has_are_one_line(
    saved: Path, tmp_path: Path, data: bytes
) -> None:
    """Though the manifest goes with them."""
    shutil.copytree(saved, tmp_path / "run")
    folder = tmp_path / "run/checkpoint-4"
    manifest = json.loads((folder / "checkpoint.json").read_text())
    del manifest["sha256"]
    for file in folder.rglob("*model_states.pt"):
        file.write_bytes(data)
        manifest["files"][str(file.relative_to(folder))] = len(data)
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="holds other things than the tensors"):
        trained_state(folder)


def test_one_flipped_byte_or_a_file_too_many_is_refused(saved: Path, tmp_path: Path) -> None:
    for name in ("deepspeed/*rank_1*optim_states.pt", "deepspeed/*model_states.pt"):
        run = tmp_path / name[-20]
        shutil.copytree(saved, run)
        [file, *_] = (run / "checkpoint-4").glob(name)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"{file.name} is damaged .*give another checkpoint"):
            find_checkpoint(run)
        (run / "checkpoint-2/deepspeed/a_model_states.pt").write_bytes(b"")
        with pytest.raises(ValueError, match="a_model_states.pt, which is not of this checkpoint"):
            find_checkpoint(run / "checkpoint-2")


@pytest.mark.parametrize(
    "changes", [{"step": "4"}, {"files": [1]}, {"trainable": {"a": 1}}, {"sha256": {"a": 1}}]
)
def test_a_manifest_of_other_types_is_one_line(
    saved: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shutil.copytree(saved / "checkpoint-2", tmp_path / "copy")
    path = tmp_path / "copy/checkpoint.json"
    whole = json.loads(path.read_text())
    [name] = changes
    texts = ["{}", "[]", "", '{"version": 1}', "[" * 99_999, json.dumps({**whole, **changes})]
    for text in texts:
        path.write_text(text)
        with pytest.raises(
            ValueError, match=r"\A[^\n]*checkpoint.json is broken \([^\n]*\Z"
        ) as what:
            find_checkpoint(tmp_path / "copy")
    assert f"its {name} is " in str(what.value)
    path.write_text(json.dumps({**whole, "files": {"../x": 0, **whole["files"]}}))
    with pytest.raises(ValueError, match=r"is broken \(it lists '../x'\)"):
        find_checkpoint(tmp_path / "copy")
    older = {name: value for name, value in whole.items() if name not in ("sha256", "deepspeed")}
    path.write_text(json.dumps(older))
    assert find_checkpoint(tmp_path / "copy") == tmp_path / "copy"


@pytest.mark.parametrize("text", [b"", b"checkpoint-9\n", b"../elsewhere\n", b"/etc\n", b"\xff"])
def test_a_broken_latest_names_the_way_on(saved: Path, tmp_path: Path, text: bytes) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    shutil.copytree(saved / "checkpoint-2", tmp_path / "elsewhere")
    (run / "latest").write_bytes(text)
    message = r"run/latest names .*; give .* there are: checkpoint-2, checkpoint-4\Z"
    for call in (find_checkpoint, lambda folder: resolve_checkpoint(folder, "latest")):
        with pytest.raises(ValueError, match=message):
            call(run)
    with pytest.raises(ValueError, match="of another run; add --resume_from_checkpoint"):
        resolve_checkpoint(run, None)
    chosen = run / "checkpoint-2"
    assert resolve_checkpoint(run, str(chosen)) == find_checkpoint(chosen) == chosen


def test_folders_of_others_stay_and_leftovers_of_ours_go(tiny_run: TinyRun, tmp_path: Path) -> None:
    theirs = ["checkpoint-5.partial", ".checkpoint-4.0123456789abcdef", "checkpoint-best"]
    for name in theirs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.csv").write_text("mine")
    ours = tmp_path / ".checkpoint-2.00112233aabbccdd"
    ours.mkdir()
    (ours / "crosslingual.json").write_text("{}")
    losses(tiny_run(output_dir=tmp_path, total_limit=1))
    assert sorted(os.listdir(tmp_path)) == sorted([*theirs, "checkpoint-6", "latest"])
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8" / "labels.csv").write_text("mine")
    with pytest.raises(ValueError, match="checkpoint-8 holds no checkpoint.json, .*move it"):
        resolve_checkpoint(tmp_path, "latest")


def test_stage_0_resumes_with_another_number_of_processes(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    whole = tiny_run(output_dir=tmp_path / "whole")
    tiny_run(output_dir=tmp_path / "run", stop_at=2)
    run = tiny_run(output_dir=tmp_path / "run", resume="latest", world_size=2)
    means = [sum(pair) / 2 for pair in zip(*losses(run), strict=True)]
    assert means == pytest.approx(whole["answers"][0]["losses"][2:], rel=1e-5)


def test_only_the_newest_checkpoints_stay(tiny_run: TinyRun, tmp_path: Path) -> None:
    tiny_run(output_dir=tmp_path, save_every=1, total_limit=3)
    names = ["checkpoint-4", "checkpoint-5", "checkpoint-6", "latest"]
    assert sorted(os.listdir(tmp_path)) == names


def test_resuming_from_an_earlier_checkpoint_replaces_the_later_ones(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Another learning rate schedule from step 2 on: its checkpoint-4 is not the old one."""
    tiny_run(output_dir=tmp_path, stop_at=4)
    earlier = str(tmp_path / "checkpoint-2")
    other = tiny_run(output_dir=tmp_path, resume=earlier, stop_at=4, max_grad_norm=0.01)
    again = tiny_run(output_dir=tmp_path, resume="latest", stop_at=4, max_grad_norm=0.01)
    assert again["answers"][0]["losses"] == []
    assert again["answers"][0]["weights"] == other["answers"][0]["weights"]


def test_a_new_run_does_not_mix_with_an_old_one(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds checkpoint-4 of another run; add --resume"):
        resolve_checkpoint(saved, None)
    elsewhere = tmp_path / "other" / "checkpoint-9"
    elsewhere.mkdir(parents=True)
    with pytest.raises(ValueError, match="holds checkpoint-4 of another run"):
        resolve_checkpoint(saved, str(elsewhere))
    assert resolve_checkpoint(tmp_path / "new", str(elsewhere)) == elsewhere
    assert resolve_checkpoint(tmp_path / "new", None) is None


@pytest.mark.parametrize("text", [None, "mine: 1", "- [", ""])
def test_a_new_run_replaces_no_files_of_others(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "metrics.jsonl").write_text("my notes\n")
    if text is not None:
        (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ValueError, match="no run of this program wrote it; move it away"):
        resolve_checkpoint(tmp_path, None)
    (tmp_path / "settings.yaml").write_text("output_dir: runs/x\nmax_train_steps: 3\n")
    assert resolve_checkpoint(tmp_path, None) is None  # of a run killed before its first checkpoint


def test_a_missing_resume_path_is_an_error(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*; leave out --resume"):
        resolve_checkpoint(tmp_path, "latest")
    with pytest.raises(FileNotFoundError, match="no checkpoint .*checkpoint-7; give"):
        resolve_checkpoint(saved, str(saved / "checkpoint-7"))
    assert resolve_checkpoint(saved, "latest") == saved / "checkpoint-4"


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_what_was_trained_is_read_without_an_engine_by_one_process(
    tiny_run: TinyRun, tmp_path: Path, number: int, world_size: int
) -> None:
    """Whatever the ZeRO stage and the number of processes that wrote it, from a copy as well."""
    run = tiny_run(output_dir=tmp_path / "run", config=stage(number), world_size=world_size)
    weights = run["answers"][0]["weights"]
    shutil.copytree(tmp_path / "run" / "checkpoint-6", tmp_path / "copy")
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoint-6", tmp_path / "copy"):
        state = trained_state(path)
        assert {name: tensor.tolist() for name, tensor in state.items()} == weights
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_a_folder_without_checkpoints_or_with_a_broken_one_holds_nothing_trained(
    saved: Path, tmp_path: Path
) -> None:
    assert find_checkpoint(saved) == find_checkpoint(saved / "checkpoint-4")
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*; give a checkpoint-N or a"):
        trained_state(tmp_path)
    shutil.copytree(saved / "checkpoint-4", tmp_path / "broken")
    os.truncate(next((tmp_path / "broken").rglob("*rank_1*optim_states.pt")), 9)
    with pytest.raises(ValueError, match="is truncated"):
        trained_state(tmp_path / "broken")
