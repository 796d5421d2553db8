"""Text accuracy by language, in the world that a pipeline's base comes from.

An arm is a pipeline under a name: `as_is` is the base with foreign prompts, the others are a
method's. `evaluate_pipelines` is the whole of a method's `evaluate` verb; a method that reports
more takes its parts, `judge_pipelines` and `write_evaluation`.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosslingual.evaluation.settings import EvaluateSettings
from crosslingual.frozen.base import Base
from crosslingual.training.processes import start_processes
from crosslingual.worlds import find_world, find_worlds

AS_IS = "as_is"

Judged = dict[tuple[str, str], list[Any]]  # (language, arm) to judged pictures


@dataclass(frozen=True)
class Arm:
    """A method's pipeline in a comparison.

    Attributes:
        head: what columns of the table call it.
        load: makes the pipeline for prompts in a language.
        by_language: whether `load` answers differently for each language.
    """

    head: str
    load: Callable[[str], Any]
    by_language: bool = False


@dataclass(frozen=True)
class Judgement:
    """What was judged.

    Attributes:
        general: the same scenes in every language.
        culture: scenes of each language's own culture; empty if none were asked for.
        is_main: whether this process is the one that writes.
        world: the world's evaluation, which also draws contact sheets.
    """

    general: Judged
    culture: Judged
    is_main: bool
    world: Any

    def accuracy(self, judged: Judged, arm: str) -> dict[str, float]:
        """The share of right pictures of one arm, by language."""
        return {
            language: sum(item.is_right for item in items) / len(items)
            for (language, name), items in judged.items()
            if name == arm
        }


def judge_pipelines(
    settings: EvaluateSettings,
    base: str,
    arms: Mapping[str, Arm],
    languages: Sequence[str],
    as_is: Sequence[str],
    num_culture_prompts: int = 0,
) -> Judgement:
    """Generates and judges the pictures of every arm; ranks share the arms.

    Args:
        settings: the number, split and seed of the prompts.
        base: the base on which the arms were trained, such as `testbed:sd`.
        arms: the method's pipelines by name.
        languages: the languages of their prompts.
        as_is: the languages that the bare base is asked in, `en` for the upper bound.
        num_culture_prompts: prompts of each language's own culture, for the method's arms alone.

    Raises:
        ValueError: no world has this base.
    """
    if ":" not in base:
        worlds = ", ".join(f"{name}:" for name in find_worlds()) or "none is installed"
        raise ValueError(
            f"text accuracy is judged on the base of a world ({worlds}), and this base is {base}: "
            "measure it with crosslingual-bench generation"
        )
    world = find_world(base).evaluation
    ranks = start_processes()

    @functools.cache
    def made(name: str, language: str) -> Any:
        return Base.open(base).load_pipeline() if name == AS_IS else arms[name].load(language)

    def load(name: str, language: str) -> Any:
        return made(name, language if name != AS_IS and arms[name].by_language else languages[0])

    judge = functools.partial(world.judge_arms, load, seed=settings.seed, ranks=ranks)
    of_arms = [(language, name) for name in arms for language in languages]
    scenes = world.scenes(settings.split, settings.num_prompts, settings.seed + 1)
    general = judge([*((language, AS_IS) for language in as_is), *of_arms], lambda _: scenes)
    culture = {}
    if num_culture_prompts:
        culture = judge(of_arms, lambda name: world.culture_scenes(name, num_culture_prompts))
    return Judgement(general, culture, ranks.rank == 0, world)


def evaluate_pipelines(
    settings: EvaluateSettings,
    base: str,
    arms: Mapping[str, Arm],
    *,
    trained: Sequence[str],
    kind: str | None,
    note: str,
    baselines: bool = True,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes accuracy.json, table.md and grid.png; prints the table.

    Args:
        settings: of the verb.
        base: the base on which the arms were trained, such as `testbed:sd`.
        arms: the method's pipelines by name.
        trained: the languages that trained.
        kind: what the trained languages were trained with, for the table; None leaves the column
            and the means out.
        note: the line under the table, such as the number of trainable parameters.
        baselines: judges the bare base too, in English (the upper bound) and every language.
        further: more to write into accuracy.json.

    Returns:
        What accuracy.json says: `english` and, by language, the accuracy of each arm.

    Raises:
        ValueError: no world has this base.
    """
    languages = settings.languages or list(trained)
    as_is = list(dict.fromkeys(["en", *languages])) if baselines else []
    judged = judge_pipelines(settings, base, arms, languages, as_is)
    accuracy = {name: judged.accuracy(judged.general, name) for name in (AS_IS, *arms)}
    result: dict[str, Any] = {
        "english": accuracy[AS_IS].get("en"),
        "languages": {
            language: {name: row[language] for name, row in accuracy.items() if language in row}
            for language in languages
        },
        "trained": list(trained),
        **(further or {}),
        "num_prompts": settings.num_prompts,
        "split": settings.split,
        "seed": settings.seed,
    }
    heads = {name: arm.head for name, arm in arms.items()}
    if judged.is_main:
        write_evaluation(settings, result, render_table(result, heads, kind, note))
        if baselines:
            columns = {AS_IS: "as-is", **{name: f"with {head}" for name, head in heads.items()}}
            grid = judged.world.draw_arms(judged.general, languages, columns)
            grid.save(Path(settings.output_dir) / "grid.png")
    return result


def write_evaluation(settings: EvaluateSettings, result: Mapping[str, Any], table: str) -> None:
    """Writes accuracy.json and table.md, and prints the table."""
    output_dir = Path(settings.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "accuracy.json").write_text(json.dumps(result, indent=1))
    (output_dir / "table.md").write_text(table, encoding="utf-8")
    print(table)


def render_table(
    result: Mapping[str, Any], heads: Mapping[str, str], kind: str | None, note: str
) -> str:
    """Text accuracy in Markdown: a row a language, two columns an arm.

    Args:
        result: of `evaluate_pipelines`.
        heads: what the columns call each arm.
        kind: of the trained languages' training; None leaves the column and the means out.
        note: the line under the table.
    """
    english, rows = result["english"], result["languages"]

    def line(head: str, training: str, as_is: float | None, shares: Sequence[float | None]) -> str:
        cells = [head] if kind is None else [head, training]
        cells.append("" if as_is is None else f"{as_is:.2f}")
        for share in shares:
            cells.append("" if share is None else f"{share:.2f}")
            cells.append("" if share is None or not english else f"{share / english:.0%}")
        return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)

    columns = "".join(f" | {head} | of English" for head in heads.values())
    lines = [
        "",
        "Text accuracy: share of pictures that show all the prompt says, read by the judge",
        "",
        f"| language |{'' if kind is None else ' training |'} as-is{columns} |",
        f"|---|{'' if kind is None else '---|'}---:|" + "---:|---:|" * len(heads),
    ]
    if english is not None:
        lines.append(line("en (upper bound)", "", english, [None] * len(heads)))
    for language, row in rows.items():
        training = kind if language in result["trained"] else "none (zero-shot)"
        lines.append(line(language, training, row.get(AS_IS), [row[name] for name in heads]))
    for name, is_trained in (("trained", True), ("zero-shot", False)):
        chosen = [
            row
            for language, row in rows.items()
            if (language in result["trained"]) == is_trained and language != "en"
        ]
        if kind is not None and chosen:
            means = [sum(row[arm] for row in chosen) / len(chosen) for arm in heads]
            lines.append(line(f"mean of {name}", "", None, means))
    return "\n".join([*lines, "", note, ""])
