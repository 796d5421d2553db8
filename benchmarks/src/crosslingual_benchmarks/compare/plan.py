"""Equal budgets: how many steps each training command may take, from how long one takes here.

Every arm may take the same seconds on the same processes, with all that a user waits for: the start
of each command, features, steps and saving. A command's steps, and what it takes besides them, are
measured by short runs of it, whose output is thrown away: a few steps, and from these as many as
take a tenth of its seconds. The numbers are written to `plan.json`, which later runs of the same
suite read: an interrupted comparison resumes with the same numbers, and a reader can repeat them by
the commands in the results.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Required

from typing_extensions import TypedDict

from crosslingual.files import read_fields, write_json
from crosslingual_benchmarks.compare.commands import Command, launch, seconds_to_step, step_time
from crosslingual_benchmarks.compare.scratch import scratch_folder
from crosslingual_benchmarks.reading import check_shape

KIND = "calibration"
STEPS = "max_train_steps"
RUN = "output_dir"
MIN_STEPS = 10
FIRST_STEPS = 24
SECOND_SHARE, SECOND_S = 0.1, 5.0
"""Share of the seconds that the second short run takes, and its least seconds. Two dozen steps
alone were off by a quarter where batches differ in length.
"""


class PlannedSteps(TypedDict, total=False):
    """An entry of plan.json; `made_of` is a hash of the command that was measured and of those
    whose outputs it reads. One without it, of an earlier version, counts as any command's.
    """

    step_s: Required[float]
    made_of: str
    overhead_s: float
    seconds: float
    steps: int


class Plan:
    """Steps by arm and command, kept in a file.

    `steps` maps `ARM/NUMBER-MODULE` to its steps, the seconds that one took, and the seconds of its
    start and end.
    """

    def __init__(self, path: Path, first: Path | None = None):
        """Reads the file where it exists, else `first`, the plan of another seed.

        Raises:
            ValueError: it is broken.
        """
        self.path = path
        self.steps: dict[str, PlannedSteps] = {}
        self._lock = threading.Lock()  # arms train side by side
        path = path if path.is_file() or first is None else first
        if path.is_file():
            remedy = "remove it, and steps are measured again"
            found = read_fields(path, {}, remedy)
            self.steps = check_shape(dict[str, PlannedSteps], found, f"{path} is broken ({remedy})")

    def knows(self, name: str, commands: Sequence[Command]) -> bool:
        """Whether a step of the last of these very commands, which reads the outputs of the others,
        was measured, be it with another seed's folders.
        """
        made_of = self._hash_of(commands)
        return name in self.steps and self.steps[name].get("made_of", made_of) == made_of

    def _hash_of(self, commands: Sequence[Command]) -> str:
        ours = f"{self.path.parent}/"
        told = [
            [c.run, c.num_processes, {k: str(v).replace(ours, "") for k, v in c.settings.items()}]
            for c in commands
        ]
        for *_, settings in told:
            settings.pop("seed", None)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def num_steps(self, name: str, commands: Sequence[Command], seconds: float) -> int:
        """How many steps the last of the commands takes in `seconds` with its start and end,
        measured where `knows` says that it was not.

        `name` is its name in the plan; the command has an `output_dir` of its own.

        Raises:
            RuntimeError: the short run failed.
            ValueError: not even `MIN_STEPS` steps fit.
        """
        if not self.knows(name, commands):
            measured = _measure(commands[-1], seconds)
            with self._lock:
                self.steps[name] = measured
        step_s, overhead_s = self.steps[name]["step_s"], self.steps[name].get("overhead_s", 0.0)
        if step_s <= 0:
            raise ValueError(f"{self.path}: a step of {name} takes {step_s} s; remove the file")
        num_steps = max(int((seconds - overhead_s) / step_s), 0)
        if num_steps < MIN_STEPS:
            raise ValueError(
                f"{name}: a step takes {step_s:.2f} s, start and end {overhead_s:.0f} s, so "
                f"{seconds:.0f} s are {num_steps} steps and train nothing: raise train_s or the "
                "step's share"
            )
        with self._lock:
            told = {"made_of": self._hash_of(commands), "seconds": seconds, "steps": num_steps}
            self.steps[name] |= told
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.steps)
        return num_steps


def _measure(command: Command, seconds: float) -> PlannedSteps:
    step_s, overhead_s = _short_run(command, FIRST_STEPS, is_first=True)
    num_steps = int(max(SECOND_SHARE * seconds, SECOND_S) / step_s)
    if num_steps > FIRST_STEPS:
        step_s, overhead_s = _short_run(command, num_steps)
    return {"step_s": step_s, "overhead_s": overhead_s}


def _short_run(command: Command, num_steps: int, is_first: bool = False) -> tuple[float, float]:
    """Seconds of a step, and of the run's start and end: the median of a first run, whose starts
    are slow, and the mean of a longer one.
    """
    place = command.place.with_name(command.place.name + "-calibration")
    with scratch_folder(place, KIND) as folder:
        run = folder / "run"
        settings = {**command.settings, RUN: str(run), STEPS: num_steps}
        settings["checkpointing_steps"] = num_steps
        wall_s = launch(replace(command, settings=settings, place=place))
        taken = step_time(run / "metrics.jsonl")
        overhead_s = max(wall_s - seconds_to_step(run / "metrics.jsonl"), 0.0)
        return taken.median_s if is_first else taken.mean_s, overhead_s
