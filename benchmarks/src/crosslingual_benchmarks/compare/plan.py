"""Equal budgets: how many steps each training command may take, from how long one takes here.

Every arm may train for the same seconds on the same processes. A command's steps are measured by
short runs of it, whose output is thrown away: a few steps, and from these as many as take a tenth
of its seconds. The numbers are written to `plan.json`, which later runs of the same suite read: an
interrupted comparison resumes with the same numbers, and a reader can repeat them by the commands
in the results.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Required

from typing_extensions import TypedDict

from crosslingual.files import MARK, read_fields, write_json
from crosslingual.folders import read_mark
from crosslingual_benchmarks.compare.commands import Command, StepTime, launch, step_time
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
    """An entry of plan.json."""

    step_s: Required[float]
    seconds: float
    steps: int


class Plan:
    """Steps by arm and command, kept in a file.

    `steps` maps `ARM/NUMBER-MODULE` to its steps and the seconds that one took.
    """

    def __init__(self, path: Path):
        """Reads the file where it exists.

        Raises:
            ValueError: it is broken.
        """
        self.path = path
        self.steps: dict[str, PlannedSteps] = {}
        if path.is_file():
            remedy = "remove it, and steps are measured again"
            found = read_fields(path, {}, remedy)
            self.steps = check_shape(dict[str, PlannedSteps], found, f"{path} is broken ({remedy})")

    def num_steps(self, name: str, command: Command, seconds: float) -> int:
        """How many steps the command takes in `seconds`, measured at the first call.

        `name` is its name in the plan; the command has an `output_dir` of its own.

        Raises:
            RuntimeError: the short run failed.
            ValueError: not even `MIN_STEPS` steps fit.
        """
        if name not in self.steps:
            self.steps[name] = {"step_s": self._measure(command, seconds)}
        step_s = self.steps[name]["step_s"]
        if step_s <= 0:
            raise ValueError(f"{self.path}: a step of {name} takes {step_s} s; remove the file")
        num_steps = int(seconds / step_s)
        if num_steps < MIN_STEPS:
            raise ValueError(
                f"{name}: a step takes {step_s:.2f} s, so {seconds:.0f} s are {num_steps} steps "
                "and train nothing: raise train_s or the step's share"
            )
        self.steps[name] |= {"seconds": seconds, "steps": num_steps}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.steps)
        return num_steps

    def _measure(self, command: Command, seconds: float) -> float:
        first = self._short_run(command, FIRST_STEPS)
        num_steps = int(max(SECOND_SHARE * seconds, SECOND_S) / first.median_s)
        if num_steps <= FIRST_STEPS:
            return first.median_s
        return self._short_run(command, num_steps).mean_s

    def _short_run(self, command: Command, num_steps: int) -> StepTime:
        place = command.place.with_name(command.place.name + "-calibration")
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in place.parent.iterdir():  # of a process that was killed
            if old.name.startswith(place.name) and (read_mark(old) or {}).get("kind") == KIND:
                shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix=f"{place.name}-", dir=place.parent) as folder:
            write_json(Path(folder) / MARK, {"format_version": 1, "kind": KIND})
            settings = {**command.settings, RUN: f"{folder}/run", STEPS: num_steps}
            settings["checkpointing_steps"] = num_steps
            launch(replace(command, settings=settings, place=place))
            return step_time(Path(folder) / "run" / "metrics.jsonl")
