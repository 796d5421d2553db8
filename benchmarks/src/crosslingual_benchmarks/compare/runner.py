"""Runs a suite: data, then each arm's commands, then every measurement, each once."""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crosslingual.files import write_text
from crosslingual_benchmarks.compare.commands import Command, end_commands, mark_of, run_command
from crosslingual_benchmarks.compare.display import Display
from crosslingual_benchmarks.compare.plan import RUN, STEPS, Plan
from crosslingual_benchmarks.compare.record import append_training, total_parameters
from crosslingual_benchmarks.compare.suite import Arm, Step, Suite, Values, fill

PACKAGE = "crosslingual_benchmarks"


@dataclass
class Runner:
    """A suite in a folder.

    `folder` gets data, arms/NAME and results; `command` repeats the whole, for the results.
    """

    suite: Suite
    folder: Path
    display: Display
    command: str

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
            "foreign": [name for name in suite.trained_languages if name != "en"],
        }
        return words | ({"arm": str(self.folder / "arms" / arm.name)} if arm else {})

    def run(self) -> dict[str, str]:
        """Runs all unfinished commands; returns the arms that failed, with their errors.

        An arm that fails stops only the arms that need its outputs.
        """
        self.write_data()
        failed: dict[str, str] = {}
        plan = Plan(self.folder / "plan.json")
        for arm in self.suite.arms:
            self._guarded(arm, failed, lambda arm=arm: self.train(arm, plan))
        left = [arm for arm in self.suite.arms if arm.name not in failed]
        jobs = [(arm, command) for arm in left for command in self.measurements(arm)]
        with ThreadPoolExecutor(self.suite.num_processes) as pool:
            try:
                list(pool.map(lambda job: self._measure(*job, failed), jobs))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                end_commands()
                raise
        for arm in left:  # alone, so that nothing else takes time from it
            for command in self.latencies(arm):
                self._measure(arm, command, failed)
        for arm in left:
            self._guarded(arm, failed, lambda arm=arm: self.record_training(arm))
        return failed

    def _guarded(self, arm: Arm, failed: dict[str, str], work: Callable[[], None]) -> None:
        try:
            work()
        except (RuntimeError, ValueError, FileNotFoundError) as error:
            failed[arm.name] = str(error)
            self.display.say(f"{arm.name} FAILED: {error}")

    def write_data(self) -> None:
        """Writes the suite's shards where they are missing.

        Raises:
            ValueError: shards are there that were made otherwise, a folder holds something else, or
                the world has no such source or option.
        """
        from crosslingual.data.shards import write_shards
        from crosslingual.worlds import find_world

        every = {**self.words(), "all": self.suite.languages}
        for number, (name, options) in enumerate(self.suite.data.items()):
            place = self.folder / "data" / name
            options = {"seed": self.suite.seed + number, **fill(options, every)}
            key = _hash([self.suite.world, options])
            begun = self._data_mark(name)
            if (place / "index.json").is_file():
                if not begun.is_file():
                    self.display.say(f"data: {name} was there before, and is used as it is")
                elif begun.read_text() != key:
                    raise ValueError(
                        f"{place} was written for a suite with other data; remove it, or choose "
                        "another --output_dir"
                    )
                continue
            self.display.say(f"data: {name}")
            sources = find_world(self.suite.world).sources
            source = options.pop("source", next(iter(sources)))
            if source not in sources:
                raise ValueError(
                    f"data {name}: no source {source!r}; there are {', '.join(sources)}"
                )
            try:
                records = sources[source](**options)
            except TypeError as error:
                raise ValueError(f"data {name}: {error}") from error
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(begun, key)
            write_shards(records, place, overwrite=None)

    def _data_mark(self, name: str) -> Path:
        return self.folder / "data" / f"{name}.begun"

    def _data_keys(self, command: Command) -> list[str]:
        """Keys of the data that a command reads: it runs again where they have changed."""
        marks = {
            f"{self.folder / 'data' / name}/": self._data_mark(name) for name in self.suite.data
        }
        read = [f"{value}/" for value in command.inputs]
        return [
            mark.read_text()
            for place, mark in marks.items()
            if mark.is_file() and any(value.startswith(place) for value in read)
        ]

    def train(self, arm: Arm, plan: Plan) -> None:
        """Runs an arm's commands."""
        key = ""
        for number, step in enumerate(arm.steps):
            command = self.command_of(arm, number, step)
            if step.share:
                name = f"{arm.name}/{number}-{step.run}"
                seconds = step.share * self.suite.train_s
                if name not in plan.steps:
                    self.display.say(f"{arm.name}: how long a step of {step.run} takes")
                command.settings[STEPS] = plan.num_steps(name, command, seconds)
                command.settings["checkpointing_steps"] = max(command.settings[STEPS] // 2, 1)
            key = command.key(key, *self._keys_of_others(arm, command), *self._data_keys(command))
            mark = mark_of(command.place)
            if mark is None or mark["key"] != key:
                steps = f", {command.settings[STEPS]} steps" if step.share else ""
                self.display.say(f"{arm.name}: {step.run}{steps}")
            run_command(self._resumed(command, key), key)
            self.display.advance()

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
        if STEPS not in command.settings:
            return command
        run, begun = Path(command.settings[RUN]), command.place.with_suffix(".begun")
        if not begun.is_file() and run.is_dir() and (found := sorted(run.iterdir())):
            raise ValueError(
                f"{run} holds {found[0].name}, which this comparison did not write; choose another "
                "--output_dir"
            )
        if begun.is_file() and begun.read_text() == key and (run / "latest").is_file():
            resumed = {**command.settings, "resume_from_checkpoint": "latest"}
            return replace(command, settings=resumed)
        self._begin(command, key, run)
        return command

    def _begin(self, command: Command, key: str, outputs: Path) -> None:
        """Moves the outputs of the command's earlier run aside, where something else may be among
        them, and says which one begins.
        """
        begun = command.place.with_suffix(".begun")
        if begun.is_file() and outputs.is_dir():
            aside = self.folder / "earlier" / f"{outputs.name}-{secrets.token_hex(4)}"
            aside.parent.mkdir(exist_ok=True)
            shutil.move(outputs, aside)
            self.display.say(f"{outputs} is now {aside}: remove it when you no longer need it")
        begun.parent.mkdir(parents=True, exist_ok=True)
        write_text(begun, key)

    def command_of(self, arm: Arm, number: int, step: Step) -> Command:
        """An arm's step as a command; those that train or compute features share processes."""
        settings = fill(step.settings, self.words(arm))
        name = f"{number}-{re.sub(r'[ .]', '-', step.run)}"
        place = self.folder / "arms" / arm.name / name
        trains = step.share > 0
        is_shared = trains or step.run.endswith("features")
        num_processes = self.suite.num_processes if is_shared else 1
        return Command(step.run, settings, place, num_processes, trains)

    def commands_of(self, arm: Arm) -> list[Command]:
        """An arm's steps as commands."""
        return [self.command_of(arm, number, step) for number, step in enumerate(arm.steps)]

    def commands_behind(self, arm: Arm) -> list[Command]:
        """The commands of all arms whose outputs made an arm's exports, in the suite's order."""
        words, exports = self.words(arm), (arm.pipeline, arm.embedder)
        wanted = [fill(value, words) for value in exports if value is not None]
        every = [command for one in self.suite.arms for command in self.commands_of(one)]
        found = self.commands_of(arm)
        places = {command.place for command in found}
        while True:
            wanted += [value for command in found for value in command.inputs]
            found = [c for c in every if c.place not in places and c.made(wanted)]
            if not found:
                return [command for command in every if command.place in places]
            places |= {command.place for command in found}

    def record_training(self, arm: Arm) -> None:
        """Appends the cost of an arm's training, once, with the part that it shares with others."""
        mark = self.folder / "arms" / arm.name / "recorded"
        size = total_parameters(self.results, arm)
        key = self._arm_key(arm) + json.dumps(size)
        commands = [command for command in self.commands_behind(arm) if command.trains]
        if not commands or (mark.is_file() and mark.read_text() == key):
            return
        languages = self.languages_of(arm)
        append_training(self.results, self.suite, arm, languages, commands, size, self.command)
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
            if arm.method == "base":
                del settings["path"]
            commands.append(Command(f"{PACKAGE} generation", settings, place / "generation"))
        if arm.embedder is not None:
            settings = {**common, "dataset": "shards", "root": str(self.folder / "data" / "test")}
            settings |= {"path": fill(arm.embedder, words), "languages": suite.languages}
            settings |= {"output_dir": str(self.results), **suite.retrieval}
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

    def _measure(self, arm: Arm, command: Command, failed: dict[str, str]) -> None:
        def work() -> None:
            mark = mark_of(command.place)
            key = command.key(self._arm_key(arm), *self._data_keys(command))
            if mark is None or mark["key"] != key:
                self.display.say(f"{arm.name}: {command.run.rpartition(' ')[2]}")
                self._drop_stale_pictures(arm, command, key)
            run_command(command, key)
            self.display.advance()

        self._guarded(arm, failed, work)

    def _drop_stale_pictures(self, arm: Arm, command: Command, key: str) -> None:
        """Moves the pictures of an earlier training aside, which `generation` would refuse."""
        begun = command.place.with_suffix(".begun")
        if not begun.is_file() or begun.read_text() != key:
            self._begin(command, key, self.results / f"{arm.name}-{self.suite.world}")

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


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
