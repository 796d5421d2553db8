"""Runs a suite: data, then each arm's commands, then every measurement, each once."""

import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from crosslingual.files import write_text
from crosslingual_benchmarks.compare import curve
from crosslingual_benchmarks.compare.arm_commands import ArmCommands
from crosslingual_benchmarks.compare.commands import (
    Command,
    mark_of,
    run_command,
    seconds_to_step,
)
from crosslingual_benchmarks.compare.curve import Point
from crosslingual_benchmarks.compare.data import data_keys, write_data
from crosslingual_benchmarks.compare.display import Display
from crosslingual_benchmarks.compare.jobs import Job, run_jobs
from crosslingual_benchmarks.compare.plan import RUN, STEPS, Plan
from crosslingual_benchmarks.compare.record import append_training, total_parameters
from crosslingual_benchmarks.compare.suite import Arm, Suite, arms_read, fill
from crosslingual_benchmarks.compare.times import Times
from crosslingual_benchmarks.generation.prompts.world import MIXED, TRAIN


@dataclass
class Runner:
    """A suite in a folder.

    Attributes:
        suite: what runs.
        folder: gets data, arms/NAME and results.
        display: what is shown.
        command: repeats the whole, for the results.
        first: the runner of the first seed; later ones take its seconds a step and its curve's
            start.
        times: of all seeds' work.
    """

    suite: Suite
    folder: Path
    display: Display
    command: str
    first: "Runner | None" = None
    times: Times = field(default_factory=Times)

    @cached_property
    def commands(self) -> ArmCommands:
        """The arms' commands."""
        return ArmCommands(self.suite, self.folder, self.first is None)

    @property
    def results(self) -> Path:
        """Where result lines go."""
        return self.commands.results

    def run(self) -> dict[str, str]:
        """Runs all unfinished commands; returns the arms that failed, with their errors.

        An arm that fails stops only the arms that need its outputs.
        """
        with self.times.of("data"):
            every = {**self.commands.words(), "all": self.suite.languages}
            write_data(self.suite, self.folder, every, self.display.say)
        failed: dict[str, str] = {}
        self._train_all(failed)
        left = [arm for arm in self.suite.arms if arm.name not in failed]
        points = self.points(left, failed)
        self.display.expect(len(points))
        self._measure_all(left, points, failed)
        for arm in left:
            self._guarded(arm, failed, self.record_training)
        self.write_curve([each for each in points if each[0].name not in failed])
        return failed

    def _train_all(self, failed: dict[str, str]) -> None:
        """Trains arms side by side; one that reads another's outputs waits for it."""
        plan = Plan(self._plan_path, self.first and self.first._plan_path)
        names = {arm.name for arm in self.suite.arms}
        jobs = [
            Job(
                arm.name,
                partial(self._guarded, arm, failed, self.train, plan, failed),
                frozenset(names & arms_read(arm)),
            )
            for arm in self.suite.arms
        ]
        run_jobs(jobs, self.suite.arms_at_once)

    def _measure_all(
        self, arms: Sequence[Arm], points: Sequence[tuple[Arm, Point]], failed: dict[str, str]
    ) -> None:
        """Measures the ends and the curves of arms, as many at once as there are cores."""
        ends = [(arm, self._measure, c) for arm in arms for c in self.commands.measurements(arm)]
        works = [*ends, *((arm, self._judge, point) for arm, point in points)]
        jobs = [
            Job(str(number), partial(self._guarded, arm, failed, work, what))
            for number, (arm, work, what) in enumerate(works)
        ]
        run_jobs(jobs, max(self.suite.num_processes, self.suite.arms_at_once))
        for arm in arms:  # alone, so that nothing else takes time from it
            for command in self.commands.latencies(arm):
                self._guarded(arm, failed, self._measure, command)

    @property
    def _plan_path(self) -> Path:
        return self.folder / "plan.json"

    def _guarded(
        self, arm: Arm, failed: dict[str, str], work: Callable[..., None], *given: Any
    ) -> None:
        """Does some work on an arm, and notes its error."""
        try:
            work(arm, *given)
        except (RuntimeError, ValueError, FileNotFoundError) as error:
            failed[arm.name] = str(error)
            self.display.say(f"{arm.name} FAILED: {error}")

    def train(self, arm: Arm, plan: Plan, failed: Mapping[str, str]) -> None:
        """Runs an arm's commands.

        Raises:
            ValueError: it needs the outputs of an arm that failed.
        """
        if lost := sorted(arms_read(arm) & failed.keys()):
            raise ValueError(f"it needs the outputs of {', '.join(lost)}, which failed")
        key = ""
        for number, step in enumerate(arm.steps):
            command = self.commands.of_step(arm, number, step)
            if command.trains:
                name = f"{arm.name}/{number}-{step.run}"
                seconds = self._seconds_left(arm, number)
                behind = self.commands.behind(arm, number)
                if not plan.knows(name, behind):
                    self.display.say(f"{arm.name}: how long a step of {step.run} takes")
                with self.times.of("calibration"):
                    num_steps = plan.num_steps(name, behind, seconds)
                command.settings[STEPS] = num_steps
                step_s = plan.steps[name]["step_s"]
                command.settings.update(curve.checkpointing(self.suite, num_steps, step_s))
            key = command.key(
                key,
                *self._keys_of_others(arm, command),
                *data_keys(self.suite, self.folder, command),
            )
            mark = mark_of(command.place)
            if mark is None or mark["key"] != key:
                steps = f", {command.settings[STEPS]} steps" if command.trains else ""
                self.display.say(f"{arm.name}: {step.run}{steps}")
            with self.times.of("training"):
                run_command(self._resumed(command, key), key)
            self.display.advance()

    def _seconds_left(self, arm: Arm, number: int) -> float:
        """Until an arm's command has to end: by its share of the seconds and those of the commands
        that it builds on, which have taken theirs.

        Raises:
            ValueError: nothing is left.
        """
        behind = self.commands.behind(arm, number)
        deadline = self._budget_s(behind)
        clock = self._clock(behind[:-1])
        if clock >= deadline:
            raise ValueError(
                f"{arm.name}: the commands before {behind[-1].run} took {clock:.0f} s, and it has "
                f"to end at {deadline:.0f} s: raise train_s or its share, or give its features "
                "fewer samples"
            )
        return deadline - clock

    def _budget_s(self, commands: Sequence[Command]) -> float:
        return min(sum(command.share for command in commands), 1.0) * self.suite.train_s

    def _clock(self, commands: Sequence[Command]) -> float:
        """Seconds that finished commands took."""
        marks = [mark_of(command.place) for command in commands]
        return sum(float(mark["seconds"]) for mark in marks if mark is not None)

    def _keys_of_others(self, arm: Arm, command: Command) -> list[str]:
        """Keys of other arms' commands whose outputs it reads: it runs again where they did."""
        others = [one for one in self.suite.arms if one.name != arm.name]
        made = [c for one in others for c in self.commands.of(one) if c.made(command.inputs)]
        return [str(mark["key"]) for c in made if (mark := mark_of(c.place)) is not None]

    def _resumed(self, command: Command, key: str) -> Command:
        """The command, resuming where the very same one was interrupted.

        Raises:
            ValueError: its folder holds something that no command of this comparison wrote.
        """
        begun, mark = command.place.with_suffix(".begun"), mark_of(command.place)
        if mark is not None and mark["key"] == key:
            return command
        if STEPS not in command.settings:
            if not begun.is_file() or begun.read_text() != key:
                self._begin(command, key, [Path(place) for place in command.outputs])
            return command
        run = Path(command.settings[RUN])
        if not begun.is_file() and run.is_dir() and (found := sorted(run.iterdir())):
            raise ValueError(
                f"{run} holds {found[0].name}, which this comparison did not write; choose another "
                "--output_dir"
            )
        if begun.is_file() and begun.read_text() == key and (run / "latest").is_file():
            resumed = {**command.settings, "resume_from_checkpoint": "latest"}
            step = int((run / "latest").read_text().strip().rpartition("-")[2])
            spent_s = seconds_to_step(run / "metrics.jsonl", step)
            return replace(command, settings=resumed, spent_s=spent_s)
        self._begin(command, key, [run])
        return command

    def _begin(self, command: Command, key: str, folders: Sequence[Path]) -> None:
        """Moves the outputs of the command's earlier run aside, where something else may be among
        them, and says which one begins.
        """
        begun, done = (command.place.with_suffix(f".{word}") for word in ("begun", "done.json"))
        for outputs in folders:
            if not (begun.is_file() or done.is_file()) or not outputs.is_dir():
                continue
            aside = self.folder / "earlier" / f"{outputs.name}-{secrets.token_hex(4)}"
            aside.parent.mkdir(exist_ok=True)
            shutil.move(outputs, aside)
            self.display.say(f"{outputs} is now {aside}: remove it when you no longer need it")
        begun.parent.mkdir(parents=True, exist_ok=True)
        for former in (done, command.place.with_suffix(".spent.json")):
            former.unlink(missing_ok=True)  # what they tell of was moved
        write_text(begun, key)

    def record_training(self, arm: Arm) -> None:
        """Appends the cost of an arm's training, once, with the part that it shares with others."""
        mark = self.folder / "arms" / arm.name / "recorded"
        size = total_parameters(self.results, arm)
        key = self._arm_key(arm) + json.dumps(size)
        behind = self.commands.behind(arm)
        commands = [command for command in behind if command.trains]
        if not commands or (mark.is_file() and mark.read_text() == key):
            return
        languages = self.commands.languages_of(arm)
        further = {**size, "budget_s": self._budget_s(behind), "wall_s": self._clock(behind)}
        append_training(self.results, self.suite, arm, languages, commands, further, self.command)
        write_text(mark, key)

    def _measure(self, arm: Arm, command: Command) -> None:
        mark = mark_of(command.place)
        others = self._keys_of_others(arm, command)
        keys = data_keys(self.suite, self.folder, command)
        key = command.key(self._arm_key(arm), *others, *keys)
        if mark is None or mark["key"] != key:
            self.display.say(f"{arm.name}: {command.run.rpartition(' ')[2]}")
            self._drop_stale_pictures(arm, command, key)
        with self.times.of("judging"):
            run_command(command, key)
        self.display.advance()

    def points(self, arms: Sequence[Arm], failed: dict[str, str]) -> list[tuple[Arm, Point]]:
        """The points of the arms' curves, with what they start from; none without a curve."""
        if self.suite.curve is None or not any(arm.pipeline and arm.steps for arm in arms):
            return []
        found = [] if self.first else [curve.as_is_arm(self.suite)]
        for arm in arms:
            self._guarded(arm, failed, self._add_points, found)
        return found

    def _add_points(self, arm: Arm, found: list[tuple[Arm, Point]]) -> None:
        stages = [
            (command, self._clock(self.commands.behind(arm, number)[:-1]))
            for number, command in enumerate(self.commands.of(arm))
            if command.trains
        ]
        pipeline = fill(arm.pipeline, self.commands.words(arm)) or ""
        found += [(arm, point) for point in curve.points_of(pipeline, stages)]

    def _judge(self, arm: Arm, point: Point) -> None:
        place = self._place_of(arm, point)
        if not place.with_name(f"{place.name}.json").is_file():
            self.display.say(f"{arm.name}: curve at {point.seconds:.0f} s")
        with self.times.of("judging"):
            curve.judge(self.suite, arm, point, place)
        self.display.advance()

    def _place_of(self, arm: Arm, point: Point) -> Path:
        return self.folder / "curve" / arm.name / point.name

    def write_curve(self, points: Sequence[tuple[Arm, Point]]) -> None:
        """Writes the lines of all points that were judged, in the place of earlier ones."""
        lines = []
        for arm, point in points:
            place = self._place_of(arm, point)
            found = curve.judge(self.suite, arm, point, place)
            lines.append(curve.line_of(self.suite, arm, point, found, self.command))
        if lines:
            self.results.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_text(self.results / "curve.json", text)

    def _drop_stale_pictures(self, arm: Arm, command: Command, key: str) -> None:
        """Moves the pictures of an earlier training aside, which `generation` would refuse."""
        begun = command.place.with_suffix(".begun")
        if not begun.is_file() or begun.read_text() != key:
            end = MIXED if "second_languages" in command.settings else ""
            end = TRAIN if command.settings.get("prompt_split") == "train" else end
            self._begin(command, key, [self.results / f"{arm.name}-{self.suite.world}{end}"])

    def _arm_key(self, arm: Arm) -> str:
        """A key that changes with the arm's last command."""
        if not arm.steps:
            return json.dumps(asdict(arm), sort_keys=True)
        place = self.commands.of_step(arm, len(arm.steps) - 1, arm.steps[-1]).place
        mark: Any = mark_of(place)
        return str(mark["key"]) if mark else ""
