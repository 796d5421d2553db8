"""Text accuracy by language, judged by the world that a pipeline's base comes from.

`evaluate_pipelines` is the whole of a method's `evaluate` verb; a method that reports more takes
`judge_pipelines`. The world does the work: `crosslingual_worlds.evaluation.Evaluation`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crosslingual.data.languages import match_languages
from crosslingual.evaluation.settings import EvaluateSettings
from crosslingual.frozen.base import Base
from crosslingual.worlds import find_world, find_worlds

AS_IS = "as_is"


@dataclass(frozen=True)
class Arm:
    """A pipeline in a comparison.

    Attributes:
        head: what columns of the table call it.
        load: makes the pipeline for prompts in a language.
        by_language: whether `load` answers differently for each language.
    """

    head: str
    load: Callable[[str], Any]
    by_language: bool = False


def judge_pipelines(
    settings: EvaluateSettings, base: str, arms: Mapping[str, Arm], *args: Any, **options: Any
) -> Any:
    """Judges pictures of every arm, and of the bare base on which they were trained, such as
    `testbed:sd`; the world's `judge_pipelines` describes the other arguments and the answer.
    """
    return _evaluation_of(base).judge_pipelines(settings, _with_base(base, arms), *args, **options)


def evaluate_pipelines(
    settings: EvaluateSettings, base: str, arms: Mapping[str, Arm], **options: Any
) -> dict[str, Any]:
    """Writes accuracy.json, table.md and grid.png, prints the table, and returns what accuracy.json
    says; the world's `evaluate_pipelines` describes the options.
    """
    evaluation, arms = _evaluation_of(base), _with_base(base, arms)
    languages = match_languages(settings.languages, find_world(base).languages).values()
    return evaluation.evaluate_pipelines(replace(settings, languages=[*languages]), arms, **options)


def _with_base(base: str, arms: Mapping[str, Arm]) -> dict[str, Arm]:
    return {AS_IS: Arm("as-is", lambda language: Base.open(base).load_pipeline()), **arms}


def _evaluation_of(base: str) -> Any:
    if ":" not in base:
        judged = [f"{name}:" for name, world in find_worlds().items() if world.evaluation_name]
        worlds = ", ".join(judged) or "none is installed"
        raise ValueError(
            f"text accuracy is judged on the base of a world ({worlds}), and this base is {base}: "
            "measure it with crosslingual-bench generation"
        )
    return find_world(base).evaluation
