"""`altdiffusion evaluate`: text accuracy and culture score in a world, for one or more stages."""

from functools import partial
from typing import Any

from altdiffusion.artifact import read_config
from altdiffusion.pipeline import load_pipeline
from altdiffusion.settings import EvaluateSettings
from crosslingual.evaluation.generation import AS_IS, Arm, judge_pipelines


def stage_names(configs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Maps names to folders: stages are the names if they all differ, or else the folders are.

    Args:
        configs: configs of exported pipelines by folder.
    """
    stages = [config["stage"] for config in configs.values()]
    are_distinct = len(set(stages)) == len(stages)
    return dict(zip(stages if are_distinct else configs, configs, strict=True))


def summarise(judged: Any, stages: list[str]) -> dict[str, Any]:
    """Accuracies and culture scores by stage and language, and their means."""
    as_is = judged.accuracy(judged.general, AS_IS)
    result: dict[str, Any] = {"english": as_is["en"], "stages": {}, AS_IS: as_is}
    for name in stages:
        accuracy = judged.accuracy(judged.general, name)
        culture = judged.accuracy(judged.culture, name)
        result["stages"][name] = {
            "accuracy": accuracy,
            "culture": culture,
            "mean_accuracy": sum(accuracy.values()) / len(accuracy),
            "mean_culture": sum(culture.values()) / len(culture) if culture else None,
        }
    return result


def render_table(result: dict[str, Any]) -> str:
    """Renders text accuracy and culture score as Markdown, one row per language."""
    stages = result["stages"]
    kinds = ("accuracy", "culture")
    heads = [f"{kind}, {name.replace('_', ' ')}" for kind in kinds for name in stages]
    lines = [
        f"English base on English prompts: {result['english']:.2f}",
        "",
        f"| language | {' | '.join(heads)} |",
        "|---|" + "---:|" * len(heads),
    ]

    def row(head: str, values: list[float | None]) -> str:
        cells = ("" if value is None else f"{value:.2f}" for value in values)
        return f"| {head} | {' | '.join(cells)} |"

    for language in next(iter(stages.values()))["accuracy"]:
        lines.append(row(language, [s[k].get(language) for k in kinds for s in stages.values()]))
    lines.append(row("mean", [s[f"mean_{k}"] for k in kinds for s in stages.values()]))
    if result["english"]:
        shares = [s["mean_accuracy"] / result["english"] for s in stages.values()]
        lines.append(row("mean of English", [*shares, *(None for _ in shares)]))
    return "\n".join(lines) + "\n"


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Writes accuracy.json, table.md, grid.png and motifs.png; returns accuracy.json's content.

    Raises:
        FileNotFoundError: a folder holds no exported pipeline.
        ValueError: no pipeline is given, their bases differ, or no world has their base.
    """
    configs = {folder: read_config(folder) for folder in settings.adapters}
    bases = {config["base"] for config in configs.values()}
    if len(bases) != 1:
        found = f"are of {', '.join(sorted(bases))}" if bases else "is empty"
        raise ValueError(f"adapters {found}: name exported pipelines of one base")
    stages = stage_names(configs)
    heads = {name: name.replace("_", " ") for name in stages}
    arms = {
        name: Arm(heads[name], lambda language, folder=folder: load_pipeline(folder))
        for name, folder in stages.items()
    }
    languages = settings.languages or next(iter(configs.values()))["languages"]
    as_is = dict.fromkeys(["en", *(languages if settings.as_is else [])])
    judged = judge_pipelines(
        settings, bases.pop(), arms, languages, list(as_is), settings.num_motif_prompts
    )
    result = summarise(judged, [*stages])
    result |= {"num_prompts": settings.num_prompts, "split": settings.split, "seed": settings.seed}
    result["num_motif_prompts"] = settings.num_motif_prompts
    columns = {AS_IS: "as-is", **heads} if settings.as_is else heads
    draw = {"grid.png": partial(judged.world.draw_arms, judged.general, languages, columns)}
    if judged.culture:
        draw["motifs.png"] = partial(judged.world.draw_culture, judged.culture, heads)
    judged.write(settings, result, render_table(result), draw)
    return result
