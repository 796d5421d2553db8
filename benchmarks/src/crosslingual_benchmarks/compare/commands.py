"""Commands of a suite, each run once: finished ones are marked, interrupted ones resume."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, Required

from typing_extensions import TypedDict

from crosslingual.cli import guard
from crosslingual.data.text import iter_json_lines
from crosslingual.files import read_fields, write_json
from crosslingual_benchmarks.compare.suite import Values
from crosslingual_benchmarks.reading import check_shape

PEAK = re.compile(r"peak ([0-9.]+)GB")
TAIL_LINES = 15
BEAT_S = 5.0
"""Seconds between two notes of how long a command runs; a killed comparison forgets fewer."""
GUARD = Path(guard.__file__)

_running: set[subprocess.Popen] = set()
_is_ending = threading.Event()


class StepRow(TypedDict, total=False):
    """A step's line of metrics.jsonl."""

    step: Required[int]
    time_s: Required[float]
    samples_per_s: float


@dataclass(frozen=True)
class Command:
    """The words after `python -m`, and settings, ready to run.

    `place` is the path of its log and its mark, without their endings. `share` is of its arm's
    seconds, where it trains; `spent_s` are the seconds of the steps that an interrupted run of it
    took, up to the checkpoint that it resumes from.
    """

    run: str
    settings: Values
    place: Path
    num_processes: int = 1
    share: float = 0.0
    spent_s: float = 0.0

    @property
    def trains(self) -> bool:
        """Whether its steps are counted and paid for."""
        return self.share > 0

    @property
    def words(self) -> list[str]:
        """The command line that repeats it."""
        launcher = ["python", "-m"]
        if self.num_processes > 1:
            launcher = ["torchrun", "--standalone", "--nproc_per_node", str(self.num_processes)]
            launcher += ["-m"]
        words = [*launcher, *self.run.split()]
        for name, value in self.settings.items():
            items = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(_word(item) for item in items)]
        return words

    def key(self, *earlier: str) -> str:
        """A hash of the command and of the keys of those before it."""
        return hashlib.sha256(json.dumps([*earlier, self.words]).encode()).hexdigest()

    @property
    def outputs(self) -> list[str]:
        """The folders that it writes."""
        return [str(value) for name, value in self.settings.items() if name.endswith("_dir")]

    @property
    def inputs(self) -> list[str]:
        """All settings but the folders that it writes."""
        given = [value for name, value in self.settings.items() if not name.endswith("_dir")]
        return [str(v) for value in given for v in (value if isinstance(value, list) else [value])]

    def made(self, values: Iterable[str]) -> bool:
        """Whether one of the values is a folder that this command writes, or lies in one."""
        return any(f"{place}/" in f"{value}/" for value in values for place in self.outputs)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def mark_of(place: Path) -> Values | None:
    """A finished command's mark; None where it did not finish."""
    path = place.with_suffix(".done.json")
    if not path.is_file():
        return None
    fields = {"key": str, "seconds": float, "command": str}
    return read_fields(path, fields, "remove it to run the command again")


def run_command(command: Command, key: str) -> float:
    """Runs a command unless its mark holds `key`, and returns its seconds.

    Its output goes to `PLACE.log`.

    Raises:
        RuntimeError: it failed; the end of its log is in the message.
    """
    mark = mark_of(command.place)
    if mark is not None and mark["key"] == key:
        return float(mark["seconds"])
    notes = command.place.with_suffix(".spent.json")
    spent_s = command.spent_s if command.trains else _spent_s(notes, key)

    def beat(seconds: float) -> None:
        write_json(notes, {"key": key, "seconds": spent_s + seconds})

    seconds = spent_s + launch(command, beat)
    notes.unlink(missing_ok=True)
    mark = {"key": key, "seconds": seconds, "command": " ".join(command.words)}
    write_json(command.place.with_suffix(".done.json"), mark)
    return seconds


def _spent_s(notes: Path, key: str) -> float:
    """Seconds that interrupted runs of a command took; those of a training are its steps'."""
    if not notes.is_file():
        return 0.0
    found = read_fields(notes, {"key": str, "seconds": float}, "remove it")
    return found["seconds"] if found["key"] == key else 0.0


def launch(command: Command, beat: Callable[[float], None] = lambda _: None) -> float:
    """Runs a command now, in a session of its own that ends with this process; returns its seconds.

    Now and then `beat` is called with the seconds so far.

    Raises:
        RuntimeError: it failed, or `end_commands` ended it.
    """
    log = command.place.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    words = command.words
    words[0:1] = [sys.executable]
    if command.num_processes > 1:
        words[1:1] = ["-m", "torch.distributed.run"]
    words = [sys.executable, str(GUARD), str(os.getpid()), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if _is_ending.is_set():
        raise RuntimeError(f"{command.run} was not started")
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            words, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    _running.add(process)
    try:
        while (code := _code_within(process, BEAT_S)) is None:
            beat(time.monotonic() - started)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        _running.discard(process)
    if _is_ending.is_set():  # a training that is told to stop saves, and ends well
        raise RuntimeError(f"{command.run} was ended")
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise RuntimeError(
            f"{command.run} ended with code {code}; the end of {log}:\n"
            + "\n".join(lines[-TAIL_LINES:])
        )
    return time.monotonic() - started


def _code_within(process: subprocess.Popen, seconds: float) -> int | None:
    """A process's exit code; None where it still runs after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def allow_commands() -> None:
    """Lets commands start again after `end_commands`."""
    _is_ending.clear()


def end_commands() -> None:
    """Ends the commands that other threads of this process run, and starts no other."""
    _is_ending.set()
    for process in list(_running):
        process.terminate()


@dataclass(frozen=True)
class StepTime:
    """Seconds between a run's optimiser steps.

    The median is the time of an undisturbed step. The mean includes slow starts, checkpoints and
    batches of other lengths: it is the time that one waits and pays for.
    """

    median_s: float
    mean_s: float


def step_time(metrics: Path) -> StepTime:
    """Reads how long a step took from a run's metrics.jsonl.

    A run that was interrupted may have taken a step twice: the last time counts. The time between
    two processes does not count.

    Raises:
        ValueError: too few steps to tell.
    """
    rows = _step_rows(metrics)
    gaps = {
        after["step"]: after["time_s"] - before["time_s"]
        for before, after in pairwise(rows)
        if after["step"] == before["step"] + 1 and after["time_s"] > before["time_s"]
    }
    if len(gaps) < 3:
        raise ValueError(f"{metrics} has {len(rows)} steps, too few to tell how long one takes")
    return StepTime(median(gaps.values()), mean(gaps.values()))


def seconds_to_step(metrics: Path, step: float = math.inf) -> float:
    """Seconds from the first step's start to the end of `step`, or of the last one; those between
    an interruption and the run that resumed do not count.
    """
    total = last = 0.0
    for row in _step_rows(metrics):
        if row["step"] > step:
            break
        total += row["time_s"] - (last if row["time_s"] > last else 0.0)
        last = row["time_s"]
    return total


def _step_rows(metrics: Path) -> list[Values]:
    """The rows of optimiser steps, among those of validations."""
    found = [(f"{metrics} line {n}", row) for n, row in iter_json_lines(metrics)]
    return [check_shape(StepRow, row, where) for where, row in found if "learning_rate" in row]


def training_rows(run: Path, place: Path) -> Values:
    """A run's training, by its metrics.jsonl, latest checkpoint and log.

    `place` is its command's, whose log lies there.

    Returns:
        `steps`, `step_s` (median), `train_s` (steps x mean), `samples_per_s` (the last),
        `trainable_parameters`, and `peak_gb` (GiB of the first process) where the log says it.

    Raises:
        FileNotFoundError: nothing was trained there.
    """
    metrics, latest = run / "metrics.jsonl", run / "latest"
    if not metrics.is_file() or not latest.is_file():
        raise FileNotFoundError(f"no finished training in {run}")
    steps = _step_rows(metrics)
    checkpoint = run / latest.read_text(encoding="utf-8").strip() / "checkpoint.json"
    manifest = read_fields(checkpoint, {"trainable": dict[str, list[int]]}, "train again")
    log = place.with_suffix(".log")
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    peaks = PEAK.findall(text)
    taken = step_time(metrics)
    return {
        "steps": steps[-1]["step"],
        "step_s": taken.median_s,
        "train_s": steps[-1]["step"] * taken.mean_s,
        "samples_per_s": steps[-1].get("samples_per_s", 0.0),
        "trainable_parameters": sum(math.prod(shape) for shape in manifest["trainable"].values()),
        **({"peak_gb": float(peaks[-1])} if peaks else {}),
    }
