"""A suite: data, arms and how they are measured, read from one YAML file.

An arm is a list of commands, so that benchmarks need to import no method and a new one is a few
lines in a suite. Words in braces stand for places and languages:

| word | stands for |
|---|---|
| `{data}` | the folder with the suite's shards |
| `{arm}` | the arm's own folder |
| `{arms}` | the folder of all arms, for an arm that reads another's outputs |
| `{base}`, `{clip}`, `{seed}` | the suite's |
| `{trained}`, `{foreign}` | as a whole value: a list, the trained languages and those but English |

With `each: {names: [30, 100]}` an arm or a set of data that holds the word `{names}` is repeated
for each of its values.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from crosslingual.data.text import decode_text
from crosslingual_benchmarks.reading import check_name, check_shape

SUITES = Path(__file__).with_name("suites")

FORBID = {"extra": "forbid", "allow_inf_nan": False}  # keys that a class does not have are errors

Values = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One command of an arm.

    Attributes:
        run: a module and its verb, such as `pea train`; it takes `--name value`.
        settings: of the command.
        share: of the arm's seconds, with those of the commands since the last step that trains; 0
            for a step that does not train.
    """

    __pydantic_config__ = FORBID
    run: str
    settings: Values = field(default_factory=dict)
    share: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A cell of the table that answers a suite's question: an arm's mean over languages.

    Attributes:
        row: name of the cell's row.
        column: name of its column.
        languages: whose mean it is.
        against: arm whose mean over the same languages is taken from it.
        measure: of pictures that are drawn, or of those that are found.
    """

    __pydantic_config__ = FORBID
    row: str
    column: str
    languages: list[str]
    against: str | None = None
    measure: Literal["text_accuracy", "mean_recall"] = "text_accuracy"


@dataclass(frozen=True)
class Question:
    """What a suite asks: the title and the text of a section of the page, whose table its arms'
    answers fill.
    """

    __pydantic_config__ = FORBID
    title: str
    text: str


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
        num_seeds: it runs under so many of the comparison's seeds, the first ones; under all if
            None.
        prompt_language: `native`, or `english` for an upper bound.
        trained_languages: whose captions trained, English among them; the suite's if None.
        answers: cells of the table that answers the suite's question.
    """

    __pydantic_config__ = FORBID
    name: str
    about: str
    method: str
    steps: list[Step] = field(default_factory=list)
    pipeline: str | None = None
    embedder: str | None = None
    num_seeds: int | None = None
    prompt_language: str = "native"
    trained_languages: list[str] | None = None
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Curve:
    """How each arm's quality over its seconds is measured, on the validation split.

    Attributes:
        num_points: checkpoints of an arm that are judged, at equal distances of its seconds.
        num_prompts: prompts in each trained language.
    """

    __pydantic_config__ = FORBID
    num_points: int = 5
    num_prompts: int = 16


@dataclass(frozen=True)
class Mixing:
    """How each arm's pipeline is measured on prompts in two languages, one of them a trained one.

    Attributes:
        num_prompts: prompts in each ordered pair of languages, and in each language alone.
    """

    __pydantic_config__ = FORBID
    num_prompts: int = 16


@dataclass(frozen=True)
class Reading:
    """How each arm's pipeline is measured on prompts of the training split, some or all of whose
    captions it has read.

    Attributes:
        num_prompts: prompts in each language.
    """

    __pydantic_config__ = FORBID
    num_prompts: int = 48


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
        retrieval: options of `crosslingual-bench retrieval`; the shards are `data: test`, unless
            `dataset` names a world.
        arms: in the order of the tables.
        train_s: seconds that each arm may take: starts, features, training steps and saving.
        num_processes: that share a training step.
        arms_at_once: arms that train side by side.
        curve: how quality over seconds is measured; None measures the end alone.
        mixing: how prompts in two languages are measured; None measures none.
        reading: how prompts of the training split are measured; None measures none.
        question: what the suite asks, in a section of its own; None where it compares arms alone.
        latency: whether a query's milliseconds are measured.
        seed: of everything.
    """

    __pydantic_config__ = FORBID
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
    arms_at_once: int = 1
    curve: Curve | None = None
    mixing: Mixing | None = None
    reading: Reading | None = None
    question: Question | None = None
    latency: bool = True
    seed: int = 0

    @property
    def foreign_languages(self) -> list[str]:
        """Those that train, but English."""
        return [language for language in self.trained_languages if language != "en"]

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
    try:
        values = yaml.safe_load(decode_text(path.read_bytes()))
        json.dumps(values, allow_nan=False)  # no dates, sets or values that hold themselves
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no suite: {error}") from error
    return build_suite(values, str(path))


def build_suite(values: Any, where: str) -> Suite:
    """A suite of parsed YAML.

    Raises:
        ValueError: a key is unknown, missing or of another type, a name stands twice or cannot name
            a folder, shares are above 1, a number is below 1, an answer names an arm or a language
            that the suite lacks, a curve has no languages, or an arm has more seeds than one whose
            outputs it reads.
    """
    suite: Suite = check_shape(Suite, repeated(values, where), where, strict=False)
    names = [arm.name for arm in suite.arms]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: two arms of one name among {', '.join(names)}")
    for name in (*names, *suite.data):
        check_name(name, where)
    _check_seeds(suite.arms, where)
    for arm in suite.arms:
        if any(step.share < 0 for step in arm.steps) or sum(s.share for s in arm.steps) > 1 + 1e-6:
            raise ValueError(f"{where}, arm {arm.name}: shares are at least 0 and at most 1 in all")
        for answer in arm.answers:
            unknown = {answer.against or arm.name} - {*names}
            unknown |= {*answer.languages} - {*suite.languages}
            if unknown or not answer.languages or suite.question is None:
                told = ", ".join(sorted(unknown)) or "question or languages"
                raise ValueError(f"{where}, arm {arm.name}: an answer lacks {told} in this suite")
    counts = [suite.num_processes, suite.arms_at_once]
    counts += [suite.curve.num_points, suite.curve.num_prompts] if suite.curve else []
    counts += [part.num_prompts for part in (suite.mixing, suite.reading) if part]
    if suite.train_s <= 0 or min(counts) < 1 or not suite.trained_languages:
        raise ValueError(
            f"{where}: train_s, num_processes, arms_at_once, trained_languages or a number of the "
            "curve, of mixing or of reading is empty or below 1"
        )
    if suite.curve and not ("en" in suite.trained_languages and suite.foreign_languages):
        raise ValueError(f"{where}: a curve needs English and another language that train")
    return suite


def repeated(values: Any, where: str) -> Any:
    """A suite's values without `each`, its arms and data repeated.

    Raises:
        ValueError: `each` is no word with a list of values, or nothing holds a word.
    """
    if not isinstance(values, dict) or "each" not in values:
        return values
    values = {**values}
    each = check_shape(dict[str, list[str | int | float]], values.pop("each"), f"{where}, each")
    for word, choices in each.items():
        if not choices or f"{{{word}}}" not in json.dumps(values):
            raise ValueError(f"{where}, each: {word} has no value, or nothing holds {{{word}}}")
        for kind in ("arms", "data"):
            values[kind] = _repeat(values.get(kind), word, choices)
    return values


def _repeat(parts: Any, word: str, choices: list[Any]) -> Any:
    """Arms or data, those that hold a word once for each choice; anything else as it is."""
    if isinstance(parts, list):
        return [one for part in parts for one in _copies(part, word, choices)]
    if isinstance(parts, dict):
        return dict(one for pair in parts.items() for one in _copies([*pair], word, choices))
    return parts


def _copies(value: Any, word: str, choices: list[Any]) -> list[Any]:
    """A value once for each choice of a word that it holds; itself where it holds none."""
    if f"{{{word}}}" not in json.dumps(value):
        return [value]
    return [_with(value, f"{{{word}}}", choice) for choice in choices]


def _with(value: Any, word: str, choice: Any) -> Any:
    """A value with a word in braces replaced; a text that is the word alone becomes the choice."""
    if isinstance(value, dict):
        return {
            _with(name, word, choice): _with(item, word, choice) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_with(item, word, choice) for item in value]
    if not isinstance(value, str):
        return value
    return choice if value == word else value.replace(word, str(choice))


def _check_seeds(arms: list[Arm], where: str) -> None:
    """Refuses numbers of seeds below 1, and an arm that would lack another's outputs."""
    seeds = {arm.name: float("inf") if arm.num_seeds is None else arm.num_seeds for arm in arms}
    for arm in arms:
        if seeds[arm.name] < 1:
            raise ValueError(f"{where}, arm {arm.name}: num_seeds is below 1")
        for name in arms_read(arm) & seeds.keys():
            if seeds[name] < seeds[arm.name]:
                raise ValueError(
                    f"{where}, arm {arm.name}: it reads {name}, which has fewer seeds: give it the "
                    "same num_seeds"
                )


def arms_read(arm: Arm) -> set[str]:
    """Names of other arms whose folders an arm's settings name."""
    return set(re.findall(r"\{arms\}/([^/\"]+)/", json.dumps(asdict(arm)))) - {arm.name}


def fill(value: Any, words: Values) -> Any:
    """A value with its words in braces replaced, in lists and dicts too.

    Raises:
        ValueError: a word is unknown, or a brace is left open.
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
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        known = ", ".join(f"{{{word}}}" for word in words)
        raise ValueError(f"{value!r} holds an unknown word; there are {known}") from error
