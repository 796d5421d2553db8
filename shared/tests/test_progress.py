"""Progress: metrics.jsonl whatever happens, a line now and then, trackers by name."""

import json
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crosslingual.training import trackers
from crosslingual.training.progress import Progress, peak_memory_bytes


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run_steps(folder: Path, first: int, last: int, **options: Any) -> None:
    progress = Progress(6, folder, start_step=first - 1, **options)
    for step in range(first, last + 1):
        progress.step(step, 1 / step, {"kd": 0.5}, 1e-4, num_samples=8)
    progress.close()


def test_every_step_is_a_row(tmp_path: Path) -> None:
    run_steps(tmp_path, 1, 3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    row = rows(tmp_path)[1]
    assert (row["loss"], row["kd"], row["learning_rate"]) == (0.5, 0.5, 1e-4)
    assert row["samples_per_s"] > 0 and row["time_s"] >= 0


def test_resume_drops_later_rows_and_a_half_line(tmp_path: Path) -> None:
    run_steps(tmp_path, 1, 5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    run_steps(tmp_path, 4, 6)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[1]\n')
    with pytest.raises(ValueError, match="metrics.jsonl line 2 is no row of a run; move"):
        run_steps(tmp_path, 2, 3)


def test_without_a_terminal_there_is_a_line_every_n_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(tmp_path / "rare", 1, 6, description="pea")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, "only the last step, when ten seconds have not passed"
    for word in ("pea step 6/6", "loss 0.1667", "lr 1.00e-04", "samples/s", "peak", "ETA 00:00"):
        assert word in lines[0]
    run_steps(tmp_path / "often", 1, 6, every_s=0.0)
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_a_terminal_gets_a_bar_from_the_resumed_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run_steps(tmp_path, 4, 6)
    text = capsys.readouterr().err
    assert "3/6" in text and "6/6" in text and "step 6/6," not in text


def test_other_ranks_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "none"
    run_steps(folder, 1, 6, rank=1, every_s=0.0)
    progress = Progress(1, folder, rank=1)
    progress.log({"a": 1}, 1)
    progress.pictures("grid", Image.new("RGB", (2, 2)), 1)
    assert not folder.exists() and capsys.readouterr().err == ""


def test_pictures_lie_beside_the_metrics(tmp_path: Path) -> None:
    progress = Progress(1, tmp_path)
    progress.pictures("samples", Image.new("RGB", (3, 2), "red"), 40)
    progress.log({"accuracy": 0.5, "language": "de"}, 40)
    progress.close()
    with Image.open(tmp_path / "pictures" / "samples-000040.png") as picture:
        assert picture.size == (3, 2)
    assert rows(tmp_path)[0] | {"time_s": 0} == {
        "step": 40,
        "time_s": 0,
        "accuracy": 0.5,
        "language": "de",
    }


def test_unknown_and_missing_trackers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="report_to is none, tensorboard, wandb, trackio, not 'x'"):
        Progress(1, tmp_path, report_to="x")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="report_to trackio needs a package: pip install trackio"):
        Progress(1, tmp_path, report_to="trackio")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_numbers_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Against a stand-in with the calls that both have."""
    calls: list[Any] = []
    module = types.SimpleNamespace(
        init=lambda **options: calls.append(options),
        log=lambda values, step: calls.append((step, values)),
        Image=lambda picture: "picture",
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: module)
    progress = Progress(1, tmp_path / "run", report_to=name)
    progress.log({"accuracy": 0.5, "language": "de"}, 3)
    progress.pictures("grid", Image.new("RGB", (2, 2)), 3)
    progress.close()
    assert calls == [
        {"project": "crosslingual", "name": "run"},
        (3, {"accuracy": 0.5}),
        (3, {"grid": "picture"}),
        "finish",
    ]


def test_tensorboard_gets_the_same(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    progress = Progress(2, tmp_path, report_to="tensorboard")
    progress.step(1, 0.25, {}, 1e-4, num_samples=8)
    progress.pictures("grid", Image.new("RGB", (4, 4)), 1)
    progress.close()
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 0.25)]
    assert [event.step for event in read.Images("grid")] == [1]


def test_peak_memory_is_in_bytes() -> None:
    assert 10 * 2**20 < peak_memory_bytes() < 2**40
