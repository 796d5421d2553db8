"""The commands of a suite's arms: those that train, and those that measure what they made."""

import re
from dataclasses import dataclass
from pathlib import Path

from crosslingual_benchmarks.compare.commands import Command
from crosslingual_benchmarks.compare.suite import Arm, Step, Suite, Values, fill

PACKAGE = "crosslingual_benchmarks"
GENERAL_PROMPTS = {"num_motif_prompts": 0, "use_references": False, "num_shown": 0}


@dataclass(frozen=True)
class ArmCommands:
    """A suite's commands in a folder; nothing here runs one.

    Attributes:
        suite: whose arms they are.
        folder: gets data, arms/NAME and results.
        is_first: whether this is the first seed, whose pictures the page shows.
    """

    suite: Suite
    folder: Path
    is_first: bool = True

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

    def of_step(self, arm: Arm, number: int, step: Step) -> Command:
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

    def of(self, arm: Arm) -> list[Command]:
        """An arm's steps as commands."""
        return [self.of_step(arm, number, step) for number, step in enumerate(arm.steps)]

    def behind(self, arm: Arm, number: int | None = None) -> list[Command]:
        """The commands of all arms whose outputs made an arm's exports, or those whose outputs its
        command of that number reads, with the arm's own up to it; the arm's own come last, and the
        others in the suite's order.
        """
        own = self.of(arm)
        words, exports = self.words(arm), (arm.pipeline, arm.embedder)
        wanted = [fill(value, words) for value in exports if value is not None]
        if number is not None:
            own, wanted = own[: number + 1], []
        others = [c for one in self.suite.arms if one != arm for c in self.of(one)]
        found, places = own, set[Path]()
        while True:
            wanted += [value for command in found for value in command.inputs]
            found = [c for c in others if c.place not in places and c.made(wanted)]
            if not found:
                break
            places |= {command.place for command in found}
        return [*(command for command in others if command.place in places), *own]

    def languages_of(self, arm: Arm) -> list[str]:
        """Whose captions trained the arm; none where nothing trained."""
        if arm.trained_languages is not None:
            return arm.trained_languages
        return self.suite.trained_languages if arm.steps else []

    def measurements(self, arm: Arm) -> list[Command]:
        """The commands that measure an arm's pipeline and embedder."""
        drawn = [] if arm.pipeline is None else self._drawings(arm, arm.pipeline)
        return [*drawn, *([] if arm.embedder is None else [self._search(arm, arm.embedder)])]

    def _drawings(self, arm: Arm, pipeline: str) -> list[Command]:
        suite, place = self.suite, self.folder / "arms" / arm.name
        settings: Values = {"method": arm.method, "arm": arm.name, "dataset": suite.world}
        settings |= {"base": suite.base, "path": fill(pipeline, self.words(arm))}
        settings |= {"prompt_language": arm.prompt_language, "languages": suite.languages}
        settings |= {"output_dir": str(self.results), **suite.generation}
        if trained := self.languages_of(arm):
            settings["trained_languages"] = trained
        settings["seed"] = suite.seed
        if not self.is_first:
            settings["num_shown"] = 0  # the page shows the first seed's sheets
        if arm.method == "base":
            del settings["path"]
        kinds = {"generation": settings}
        if suite.mixing is not None and arm.prompt_language == "native":
            mixed = {"num_prompts": suite.mixing.num_prompts}
            mixed["second_languages"] = suite.trained_languages
            kinds["mixing"] = {**settings, **GENERAL_PROMPTS, **mixed}
        if suite.reading is not None:
            read = {"num_prompts": suite.reading.num_prompts, "prompt_split": "train"}
            kinds["reading"] = {**settings, **GENERAL_PROMPTS, **read}
        run = f"{PACKAGE} generation"
        return [Command(run, values, place / kind) for kind, values in kinds.items()]

    def _search(self, arm: Arm, embedder: str) -> Command:
        suite, place = self.suite, self.folder / "arms" / arm.name
        settings: Values = {"method": arm.method, "arm": arm.name, "dataset": "shards"}
        settings |= {"root": str(self.folder / "data" / "test")}
        settings |= {"path": fill(embedder, self.words(arm)), "languages": suite.languages}
        settings |= {"output_dir": str(self.results), **suite.retrieval}
        if suite.seed:  # by which the page knows lines of one arm for its seeds
            settings["seed"] = suite.seed
        if settings["dataset"] != "shards":
            del settings["root"]  # a world's own galleries
        return Command(f"{PACKAGE} retrieval", settings, place / "retrieval")

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

    @property
    def total(self) -> int:
        """The number of commands of all arms."""
        arms = self.suite.arms
        return sum(len(a.steps) + len(self.measurements(a)) + len(self.latencies(a)) for a in arms)
