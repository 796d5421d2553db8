"""A suite: data, arms and how they are measured, read from one YAML file.

An arm is a list of commands, so that benchmarks need to import no method and a new one is a few
lines in a suite. Words in braces stand for places and languages:

| word | stands for |
|---|---|
| `{data}` | the folder with the suite's shards |
| `{arm}` | the arm's own folder |
| `{arms}` | the folder of all arms, for an arm that goes on from another's |
| `{base}`, `{clip}` | the suite's |
| `{trained}`, `{foreign}` | as a whole value: a list, the trained languages and those but English |
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

SUITES = Path(__file__).with_name("suites")

Values = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One command of an arm.

    Attributes:
        run: a module and its verb, such as `pea train`; it takes `--name value`.
        settings: of the command.
        share: of the arm's training budget; 0 for a step that does not train.
    """

    run: str
    settings: Values = field(default_factory=dict)
    share: float = 0.0


@dataclass(frozen=True)
class Arm:
    """One way to draw or find pictures by prompts in other languages.

    Attributes:
        name: as tables call it.
        about: one line: what trains, on what.
        method: entry point that loads the results; `base` and `clip` for the English models.
        steps: what has to run first.
        pipeline: what `load_pipeline` is given; None where the arm draws nothing.
        embedder: what `load_embedder` is given; None where the arm finds nothing.
        prompt_language: `native`, or `english` for an upper bound.
        trained_languages: whose captions trained, English among them; the suite's if None.
    """

    name: str
    about: str
    method: str
    steps: list[Step] = field(default_factory=list)
    pipeline: str | None = None
    embedder: str | None = None
    prompt_language: str = "native"
    trained_languages: list[str] | None = None


@dataclass(frozen=True)
class Suite:
    """All of a comparison.

    Attributes:
        name: of the suite, and the dataset's name in results.
        base: the English diffusion base.
        clip: the English CLIP.
        trained_languages: English first.
        zero_shot_languages: tested, and never trained by an arm unless it says so.
        data: name of a set of shards to the options of the world's source.
        generation: options of `crosslingual-bench generation`.
        retrieval: options of `crosslingual-bench retrieval`; the shards are `data: test`.
        arms: in the order of the tables.
        train_s: seconds that each arm may train for.
        num_processes: that share a training step.
        latency: whether a query's milliseconds are measured.
        seed: of everything.
    """

    name: str
    base: str
    clip: str
    trained_languages: list[str]
    zero_shot_languages: list[str]
    data: dict[str, Values]
    generation: Values
    retrieval: Values
    arms: list[Arm]
    train_s: float
    num_processes: int = 2
    latency: bool = True
    seed: int = 0

    @property
    def languages(self) -> list[str]:
        """All that are tested."""
        return [*self.trained_languages, *self.zero_shot_languages]

    @property
    def world(self) -> str:
        """The world whose scenes are drawn and found: that of the base."""
        return self.base.partition(":")[0]


def read_suite(name: str) -> Suite:
    """Reads a suite of ours by name, or a YAML file.

    Raises:
        FileNotFoundError: there is none; ours are named.
        ValueError: a key is unknown or missing, or a name stands twice.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        ours = ", ".join(sorted(p.stem for p in SUITES.glob("*.yaml")))
        raise FileNotFoundError(f"no suite {name!r}: give a YAML file, or one of {ours}")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return build_suite(values, str(path))


def build_suite(values: Any, where: str) -> Suite:
    """A suite of parsed YAML.

    Raises:
        ValueError: a key is unknown or missing, a name stands twice, or shares are above 1.
    """
    arms = []
    for arm in _checked(Suite, values, where)["arms"]:
        of = f"{where}, arm {arm.get('name') if isinstance(arm, dict) else arm}"
        arm = _checked(Arm, arm, of)
        steps = [Step(**_checked(Step, step, of)) for step in arm.get("steps", [])]
        if sum(step.share for step in steps) > 1 + 1e-6:
            raise ValueError(f"{of}: its steps take more than its budget: shares add up to over 1")
        arms.append(Arm(**{**arm, "steps": steps}))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: two arms of one name among {', '.join(names)}")
    return Suite(**{**values, "arms": arms})


def fill(value: Any, words: Values) -> Any:
    """A value with its words in braces replaced, in lists and dicts too.

    Raises:
        ValueError: a word is unknown.
    """
    if isinstance(value, dict):
        return {name: fill(item, words) for name, item in value.items()}
    if isinstance(value, list):
        return [fill(item, words) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith("{") and isinstance(words.get(value[1:-1]), list):
        return words[value[1:-1]]
    try:
        return value.format_map(words)
    except KeyError as error:
        known = ", ".join(f"{{{word}}}" for word in words)
        raise ValueError(f"{value!r} holds an unknown word; there are {known}") from error


def _checked(kind: type, values: Any, where: str) -> Values:
    if not isinstance(values, dict):
        raise ValueError(f"{where}: settings by name are wanted, not {values!r}")
    known = {f.name for f in fields(kind)}
    if unknown := set(values) - known:
        raise ValueError(
            f"{where}: unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    wanted = {f.name for f in fields(kind) if f.default is f.default_factory}
    if missing := wanted - set(values):
        raise ValueError(f"{where}: {', '.join(sorted(missing))} missing")
    return values
