"""Groups of results that one table may hold: their names, and why they are separate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crosslingual_benchmarks.cost.measured import AS_IS
from crosslingual_benchmarks.report.arms import Arm, arms_of, merge_seeds
from crosslingual_benchmarks.report.languages import in_order
from crosslingual_benchmarks.results import Result, by_protocol


@dataclass(frozen=True)
class Group:
    """The results of a task under one dataset and protocol.

    Its key is the task and a number, for anchors and file names. Its name is the dataset, with the
    parts of its protocol that differ among the task's groups.
    """

    key: str
    name: str
    protocol: str
    arms: list[Arm]
    results: list[Result]

    @property
    def languages(self) -> list[str]:
        """Of its texts, English first."""
        return in_order({r["language"] for r in self.results if r.get("language")})

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """What the lines say of languages, such as their scripts."""
        told = [r for r in self.results if r.get("language") and r.get("language_facts")]
        return {r["language"]: r["language_facts"] for r in told}

    @property
    def trained(self) -> set[str]:
        """The foreign languages that any arm was trained in."""
        told = [set(r.get("trained_languages", ())) for r in self.results]
        return set().union(*told) - {"en"}

    def shares(self, arm: Arm, name: str) -> dict[str, float]:
        """An arm's metric in each foreign language that has it, the mean over its seeds."""
        found = {x: arm.number(name, x) for x in self.languages if x != "en"}
        return {x: number.value for x, number in found.items() if number is not None}

    def english(self, name: str) -> float | None:
        """A metric of the English model on English prompts: the bound's, or else as it is."""
        named = [arm for arm in self.arms if arm.is_bound]
        named += [arm for arm in self.arms if arm.model in AS_IS]
        found = (arm.number(name, "en") for arm in named)
        return next((number.value for number in found if number is not None), None)

    @property
    def rows(self) -> list[Arm]:
        """The arms, each one row over all of its seeds."""
        return merge_seeds(self.arms)

    @property
    def note(self) -> str:
        """The note below its tables: the protocol, and whether its lines are of one dataset."""
        hashes = {r["dataset_sha256"] for r in self.results if r.get("dataset_sha256")}
        careful = f" Careful: {len(hashes)} versions of the dataset, by dataset_sha256."
        seeds = (
            " An arm with several seeds is one row in a table by language: their mean and, in "
            "brackets, the lowest and the highest; every seed is a row of the table of all metrics."
        )
        told = careful if len(hashes) > 1 else ""
        return f"Protocol: {self.protocol}.{told}{seeds if len(self.rows) < len(self.arms) else ''}"

    @property
    def warnings(self) -> list[str]:
        """The warnings of its lines, each sentence once, with the arms that it is about."""
        told: dict[str, dict[str, None]] = {}
        for arm in self.arms:
            for result in arm.results:
                for warning in result.get("warnings", ()):
                    told.setdefault(warning, {})[arm.label] = None
        return [f"{self.name}, {', '.join(labels)}: {text}" for text, labels in told.items()]

    def sizes(self, key: str, what: str) -> str:
        """How many pictures or texts: `1000 pictures`, or the range where languages differ."""
        counts = sorted({r[key] for r in self.results if key in r})
        if not counts:
            return ""
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"{span} {what}"


def groups_of(results: Sequence[Result], task: str) -> list[Group]:
    """The groups of a task, in the order of their words."""
    parted = by_protocol(results, task)
    firsts = [lines[0] for lines in parted.values()]
    differing = _differing_keys(firsts)
    groups = []
    for number, (words, lines) in enumerate(parted.items(), 1):
        protocol = lines[0]["protocol"]
        further = [f"{key} {protocol.get(key, 'not given')}" for key in differing]
        key = task if len(parted) == 1 else f"{task}_{number}"
        name = ", ".join([str(lines[0]["dataset"]), *further])
        groups.append(Group(key, name, words, arms_of(lines), lines))
    return groups


def note_on_groups(groups: Sequence[Group], what: str) -> Iterator[str]:
    """Says why a task has several groups of tables, where it has."""
    if len(groups) < 2:
        return
    firsts = [group.results[0] for group in groups]
    reasons = [f"protocol ({key})" for key in _differing_keys(firsts)]
    if len({str(first["dataset"]) for first in firsts}) > 1:
        reasons.insert(0, "dataset")
    yield (
        f"The {what} results stand in {len(groups)} groups of tables, since they differ in "
        f"{' and '.join(reasons)}: numbers of different groups are not comparable."
    )


def _differing_keys(firsts: Sequence[Result]) -> list[str]:
    keys = sorted({key for first in firsts for key in first["protocol"]})
    return [key for key in keys if len({repr(f["protocol"].get(key)) for f in firsts}) > 1]
