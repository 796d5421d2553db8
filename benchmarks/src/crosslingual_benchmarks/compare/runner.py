"""Runs a suite: data, then each arm's commands, then every measurement, each once."""

import json
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from crosslingual.files import write_text
from crosslingual_benchmarks.compare import curve
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
from crosslingual_benchmarks.compare.suite import Arm, Step, Suite, Values, arms_read, fill
from crosslingual_benchmarks.compare.times import Times
from crosslingual_benchmarks.generation.prompts.world import MIXED, TRAIN

PACKAGE = "crosslingual_benchmarks"
NO_MOTIFS = {"num_motif_prompts": 0, "use_references": False, "num_shown": 0}


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

    @property
    def results(self) -> Path:
        """Where result lines go."""
        return self.folder / "results"

    def words(self, arm: Arm | None = None) -> Values:
        """The values of the words in braces."""
        suite = self.suite
        words: Values = {
            "data": str(self.folder / "data"),
            "arms": str(self.folder / "arms"),
            "base": suite.base,
            "clip": suite.clip,
            "seed": str(suite.seed),
            "trained": suite.trained_languages,
            "foreign": suite.foreign_languages,
        }
        return words | ({"arm": str(self.folder / "arms" / arm.name)} if arm else {})

    def run(self) -> dict[str, str]:
        """Runs all unfinished commands; returns the arms that failed, with their errors.

        An arm that fails stops only the arms that need its outputs.
        """
        with self.times.of("data"):
            every = {**self.words(), "all": self.suite.languages}
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
        ends = [(arm, self._measure, c) for arm in arms for c in self.measurements(arm)]
        works = [*ends, *((arm, self._judge, point) for arm, point in points)]
        jobs = [
            Job(str(number), partial(self._guarded, arm, failed, work, what))
            for number, (arm, work, what) in enumerate(works)
        ]
        run_jobs(jobs, max(self.suite.num_processes, self.suite.arms_at_once))
        for arm in arms:  # alone, so that nothing else takes time from it
            for command in self.latencies(arm):
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
            command = self.command_of(arm, number, step)
            if command.trains:
                name = f"{arm.name}/{number}-{step.run}"
                seconds = self._seconds_left(arm, number)
                behind = self.commands_behind(arm, number)
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
        behind = self.commands_behind(arm, number)
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
        made = [c for one in others for c in self.commands_of(one) if c.made(command.inputs)]
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

    def command_of(self, arm: Arm, number: int, step: Step) -> Command:
        """An arm's step as a command; those that train or compute features share processes, and
        those that train get the suite's seed.
        """
        settings = fill(step.settings, self.words(arm))
        if step.share > 0:
            settings.setdefault("seed", self.suite.seed)
        name = f"{number}-{re.sub(r'[ .]', '-', step.run)}"
        place = self.folder / "arms" / arm.name / name
        is_shared = step.share > 0 or step.run.endswith("features")
        num_processes = self.suite.num_processes if is_shared else 1
        return Command(step.run, settings, place, num_processes, step.share)

    def commands_of(self, arm: Arm) -> list[Command]:
        """An arm's steps as commands."""
        return [self.command_of(arm, number, step) for number, step in enumerate(arm.steps)]

    def commands_behind(self, arm: Arm, number: int | None = None) -> list[Command]:
        """The commands of all arms whose outputs made an arm's exports, or those whose outputs its
        command of that number reads, with the arm's own up to it; the arm's own come last, and the
        others in the suite's order.
        """
        own = self.commands_of(arm)
        words, exports = self.words(arm), (arm.pipeline, arm.embedder)
        wanted = [fill(value, words) for value in exports if value is not None]
        if number is not None:
            own, wanted = own[: number + 1], []
        others = [c for one in self.suite.arms if one != arm for c in self.commands_of(one)]
        found, places = own, set[Path]()
        while True:
            wanted += [value for command in found for value in command.inputs]
            found = [c for c in others if c.place not in places and c.made(wanted)]
            if not found:
                break
            places |= {command.place for command in found}
        return [*(command for command in others if command.place in places), *own]

    def record_training(self, arm: Arm) -> None:
        """Appends the cost of an arm's training, once, with the part that it shares with others."""
        mark = self.folder / "arms" / arm.name / "recorded"
        size = total_parameters(self.results, arm)
        key = self._arm_key(arm) + json.dumps(size)
        behind = self.commands_behind(arm)
        commands = [command for command in behind if command.trains]
        if not commands or (mark.is_file() and mark.read_text() == key):
            return
        languages = self.languages_of(arm)
        further = {**size, "budget_s": self._budget_s(behind), "wall_s": self._clock(behind)}
        append_training(self.results, self.suite, arm, languages, commands, further, self.command)
        write_text(mark, key)

    def languages_of(self, arm: Arm) -> list[str]:
        """Whose captions trained the arm; none where nothing trained."""
        if arm.trained_languages is not None:
            return arm.trained_languages
        return self.suite.trained_languages if arm.steps else []

    def measurements(self, arm: Arm) -> list[Command]:
        """The commands that measure an arm's pipeline and embedder."""
        suite, words = self.suite, self.words(arm)
        place = self.folder / "arms" / arm.name
        common: Values = {"method": arm.method, "arm": arm.name}
        commands = []
        if arm.pipeline is not None:
            settings = {**common, "dataset": suite.world, "base": suite.base}
            settings |= {"path": fill(arm.pipeline, words), "prompt_language": arm.prompt_language}
            settings |= {"languages": suite.languages, "output_dir": str(self.results)}
            settings |= suite.generation
            if trained := self.languages_of(arm):
                settings["trained_languages"] = trained
            settings["seed"] = suite.seed
            if self.first:
                settings["num_shown"] = 0  # the page shows the first seed's sheets
            if arm.method == "base":
                del settings["path"]
            commands.append(Command(f"{PACKAGE} generation", settings, place / "generation"))
            if suite.mixing is not None and arm.prompt_language == "native":
                mixed = {**settings, **NO_MOTIFS, "num_prompts": suite.mixing.num_prompts}
                mixed["second_languages"] = suite.trained_languages
                commands.append(Command(f"{PACKAGE} generation", mixed, place / "mixing"))
            if suite.reading is not None:
                read = {**settings, **NO_MOTIFS, "num_prompts": suite.reading.num_prompts}
                read["prompt_split"] = "train"
                commands.append(Command(f"{PACKAGE} generation", read, place / "reading"))
        if arm.embedder is not None:
            settings = {**common, "dataset": "shards", "root": str(self.folder / "data" / "test")}
            settings |= {"path": fill(arm.embedder, words), "languages": suite.languages}
            settings |= {"output_dir": str(self.results), **suite.retrieval}
            if suite.seed:  # by which the page knows lines of one arm for its seeds
                settings["seed"] = suite.seed
            if settings["dataset"] != "shards":
                del settings["root"]  # a world's own galleries
            commands.append(Command(f"{PACKAGE} retrieval", settings, place / "retrieval"))
        return commands

    def latencies(self, arm: Arm) -> list[Command]:
        """The command that measures an arm's queries, where the suite wants it."""
        can_answer = arm.prompt_language == "native" and (arm.pipeline or arm.embedder)
        if not self.suite.latency or not can_answer:
            return []
        settings: Values = {"method": arm.method, "arm": arm.name, "base": self.suite.base}
        for kind in ("embedder", "pipeline"):
            if (given := getattr(arm, kind)) is not None:
                settings[kind] = fill(given, self.words(arm))
        settings |= {"language": next((n for n in self.suite.trained_languages if n != "en"), "en")}
        settings |= {"output_dir": str(self.results), "dataset": self.suite.name}
        place = self.folder / "arms" / arm.name / "latency"
        return [Command(f"{PACKAGE} latency", settings, place)]

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
            (command, self._clock(self.commands_behind(arm, number)[:-1]))
            for number, command in enumerate(self.commands_of(arm))
            if command.trains
        ]
        pipeline = fill(arm.pipeline, self.words(arm)) or ""
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
        place = self.command_of(arm, len(arm.steps) - 1, arm.steps[-1]).place
        mark: Any = mark_of(place)
        return str(mark["key"]) if mark else ""

    @property
    def num_commands(self) -> int:
        """The number of commands of all arms."""
        arms = self.suite.arms
        return sum(len(a.steps) + len(self.measurements(a)) + len(self.latencies(a)) for a in arms)
