"""Commands of a suite, each run once: what is finished is marked, and what was cut off goes on."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from crosslingual_benchmarks.compare.suite import Values

PEAK = re.compile(r"peak ([0-9.]+)GB")
TAIL_LINES = 15


@dataclass(frozen=True)
class Command:
    """What follows `python -m`, and its settings, ready to run.

    `place` is where its log and its mark lie. Steps of a command that `trains` are counted and paid
    for.
    """

    run: str
    settings: Values
    place: Path
    num_processes: int = 1
    trains: bool = False

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
        """All that it is given and does not write."""
        given = [value for name, value in self.settings.items() if not name.endswith("_dir")]
        return [str(v) for value in given for v in (value if isinstance(value, list) else [value])]

    def made(self, values: Iterable[str]) -> bool:
        """Whether one of the values is, or lies in, a folder that this command writes."""
        return any(f"{place}/" in f"{value}/" for value in values for place in self.outputs)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def mark_of(place: Path) -> Values | None:
    """What a finished command's mark says, None where it did not finish."""
    path = place.with_suffix(".done.json")
    return json.loads(path.read_text()) if path.is_file() else None


def run_command(command: Command, key: str) -> float:
    """Runs a command unless its mark says that it is done, and returns its seconds.

    Its output goes to `PLACE.log`; it is done where its mark holds `key`.

    Raises:
        RuntimeError: it failed; the end of its log is in the message.
    """
    mark = mark_of(command.place)
    if mark is not None and mark["key"] == key:
        return float(mark["seconds"])
    seconds = launch(command)
    _write_mark(command, key, seconds)
    return seconds


def _write_mark(command: Command, key: str, seconds: float) -> None:
    path = command.place.with_suffix(".done.json")
    partial = path.with_suffix(".partial")
    mark = {"key": key, "seconds": seconds, "command": " ".join(command.words)}
    partial.write_text(json.dumps(mark, indent=1) + "\n")
    partial.rename(path)


def launch(command: Command) -> float:
    """Runs a command now; returns its seconds.

    Raises:
        RuntimeError: it failed.
    """
    log = command.place.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    words = command.words
    words[0:1] = [sys.executable]
    if command.num_processes > 1:
        words[1:1] = ["-m", "torch.distributed.run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            words, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise RuntimeError(
            f"{command.run} ended with code {done.returncode}; the end of {log}:\n"
            + "\n".join(lines[-TAIL_LINES:])
        )
    return time.monotonic() - started


@dataclass(frozen=True)
class StepTime:
    """Seconds between a run's optimiser steps.

    The median is what a step takes when nothing disturbs it. The mean holds slow starts,
    checkpoints and batches of other lengths: it is what is waited and paid for.
    """

    median_s: float
    mean_s: float


def step_time(metrics: Path) -> StepTime:
    """Reads how long a step took from a run's metrics.jsonl.

    Of a step that was taken twice, since the run was cut off and went on from an earlier
    checkpoint, the last counts; the time between two processes does not.

    Raises:
        ValueError: too few steps to tell.
    """
    rows = [json.loads(line) for line in metrics.read_text().split("\n") if line]
    rows = [row for row in rows if "learning_rate" in row]
    gaps = {
        after["step"]: after["time_s"] - before["time_s"]
        for before, after in pairwise(rows)
        if after["step"] == before["step"] + 1 and after["time_s"] > before["time_s"]
    }
    if len(gaps) < 3:
        raise ValueError(f"{metrics} has {len(rows)} steps, too few to tell how long one takes")
    return StepTime(median(gaps.values()), mean(gaps.values()))


def training_rows(run: Path, place: Path) -> Values:
    """What a run's metrics.jsonl, latest checkpoint and log say of its training.

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
    rows = [json.loads(line) for line in metrics.read_text().split("\n") if line]
    steps = [row for row in rows if "learning_rate" in row]
    manifest = json.loads((run / latest.read_text().strip() / "checkpoint.json").read_text())
    log = place.with_suffix(".log")
    peaks = PEAK.findall(log.read_text(encoding="utf-8")) if log.is_file() else []
    taken = step_time(metrics)
    return {
        "steps": steps[-1]["step"],
        "step_s": taken.median_s,
        "train_s": steps[-1]["step"] * taken.mean_s,
        "samples_per_s": steps[-1]["samples_per_s"],
        "trainable_parameters": sum(math.prod(shape) for shape in manifest["trainable"].values()),
        **({"peak_gb": float(peaks[-1])} if peaks else {}),
    }
