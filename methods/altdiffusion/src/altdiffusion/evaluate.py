"""`altdiffusion evaluate`: text accuracy and culture score on the testbed, after one stage or more.

altdiffusion evaluate --adapters runs/ca/pipeline runs/qi/pipeline --output_dir runs --languages de
torchrun --nproc_per_node 2 -m altdiffusion.evaluate ...      # ranks share the arms
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from altdiffusion.config import EvaluateSettings
from altdiffusion.export import read_config
from altdiffusion.generate import load_pipeline
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.training.processes import Ranks, start_processes
from crosslingual_worlds.drawn.contact_sheet import Cell, contact_sheet
from crosslingual_worlds.drawn.evaluation import (
    Judged,
    draw_arms,
    judge_arms,
    judge_prompts,
    text_accuracy,
)
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import Scene, motif_scenes, sample_scenes

Arm = tuple[str, str]  # language, and the name of a stage or "as_is" (the English base)
AS_IS = "as_is"


def stage_names(adapters: list[str]) -> dict[str, str]:
    """Name to folder: the stage where it tells the pipelines apart, the folder itself elsewhere.

    Raises:
        FileNotFoundError: no exported pipeline there.
        ValueError: none is given, or one is not of the testbed.
    """
    if not adapters:
        raise ValueError("adapters is empty: name exported pipelines")
    configs = {folder: read_config(folder) for folder in adapters}
    for folder, config in configs.items():
        if not config["base"].startswith("testbed:"):
            raise ValueError(
                f"the judge reads the testbed's pictures alone; {folder} is of {config['base']}"
            )
    stages = [config["stage"] for config in configs.values()]
    is_told = len(set(stages)) == len(stages)
    return dict(zip(stages if is_told else configs, configs, strict=True))


def motif_prompts(language: str, count: int) -> list[Scene]:
    """As many scenes of the language's own motif, in both sizes."""
    own = [s for s in motif_scenes() if MOTIFS[s.first.shape].language == language]
    return [own[number % len(own)] for number in range(count)]


def judge_motifs(
    stages: dict[str, str], settings: EvaluateSettings, ranks: Ranks
) -> dict[Arm, list[Judged]]:
    """Each language's motif, asked for in that language, after each stage; ranks share the arms."""
    arms = [(language, name) for name in stages for language in settings.languages]
    made: dict[str, Any] = {}
    share = {}
    with torch.no_grad():
        for language, name in arms[ranks.rank :: ranks.world_size]:
            if name not in made:
                made[name] = load_pipeline(stages[name])
            scenes = motif_prompts(language, settings.num_motif_prompts)
            share[language, name] = judge_prompts(made[name], scenes, language, seed=settings.seed)
    shares: list[dict[Arm, list[Judged]]] = [{} for _ in range(ranks.world_size)]
    dist.all_gather_object(shares, share)
    return {arm: items for part in shares for arm, items in part.items()}


def draw_motifs(judged: dict[Arm, list[Judged]], stages: list[str], num: int = 3) -> Image.Image:
    """A contact sheet, a row a language: its motif after each stage."""
    languages = list(dict.fromkeys(language for language, _ in judged))
    rows = [
        [
            Cell(item.picture, item.prompt, language, item.is_right)
            for name in stages
            for item in judged[language, name][:num]
        ]
        for language in languages
    ]
    num_shown = len(rows[0]) // len(stages)
    heads = [name.replace("_", " ") for name in stages for _ in range(num_shown)]
    return contact_sheet(rows, column_heads=heads, row_heads=languages)


def summarise(
    general: dict[Arm, list[Judged]], motifs: dict[Arm, list[Judged]], stages: list[str]
) -> dict[str, Any]:
    """Accuracies and culture scores by stage and language, and their means."""
    result: dict[str, Any] = {"english": text_accuracy(general["en", AS_IS]), "stages": {}}
    result[AS_IS] = {
        language: text_accuracy(items)
        for (language, name), items in general.items()
        if name == AS_IS
    }
    for name in stages:
        accuracy = {
            arm[0]: text_accuracy(items) for arm, items in general.items() if arm[1] == name
        }
        culture = {arm[0]: text_accuracy(items) for arm, items in motifs.items() if arm[1] == name}
        result["stages"][name] = {
            "accuracy": accuracy,
            "culture": culture,
            "mean_accuracy": sum(accuracy.values()) / len(accuracy),
            "mean_culture": sum(culture.values()) / len(culture) if culture else None,
        }
    return result


def render_table(result: dict[str, Any]) -> str:
    """Text accuracy and culture score in Markdown, a row a language."""
    stages = result["stages"]
    names = [name.replace("_", " ") for name in stages]
    heads = [*(f"accuracy, {name}" for name in names), *(f"culture, {name}" for name in names)]
    lines = [
        f"English base on English prompts: {result['english']:.2f}",
        "",
        f"| language | {' | '.join(heads)} |",
        "|---|" + "---:|" * len(heads),
    ]

    def row(head: str, values: list[float | None]) -> str:
        cells = ("" if value is None else f"{value:.2f}" for value in values)
        return f"| {head} | {' | '.join(cells)} |"

    kinds = ("accuracy", "culture")
    for language in next(iter(stages.values()))["accuracy"]:
        lines.append(row(language, [s[k].get(language) for k in kinds for s in stages.values()]))
    lines.append(row("mean", [s[f"mean_{k}"] for k in kinds for s in stages.values()]))
    if result["english"]:
        shares = [s["mean_accuracy"] / result["english"] for s in stages.values()]
        lines.append(row("mean of English", [*shares, *(None for _ in shares)]))
    return "\n".join(lines) + "\n"


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Writes accuracy.json, table.md, grid.png and motifs.png; returns what accuracy.json says."""
    stages = stage_names(settings.adapters)
    base = read_config(settings.adapters[0])["base"]
    ranks = start_processes()
    arms = [("en", AS_IS)]
    arms += [(name, AS_IS) for name in settings.languages if settings.as_is and name != "en"]
    arms += [(language, name) for name in stages for language in settings.languages]
    general = judge_arms(
        {AS_IS: lambda: load_base(base), **{n: _loading(f) for n, f in stages.items()}},
        arms,
        sample_scenes(settings.split, settings.num_prompts, settings.seed + 1),
        seed=settings.seed,
        ranks=ranks,
    )
    motifs = judge_motifs(stages, settings, ranks) if settings.num_motif_prompts else {}
    result = summarise(general, motifs, [*stages])
    result |= {"num_prompts": settings.num_prompts, "split": settings.split, "seed": settings.seed}
    result["num_motif_prompts"] = settings.num_motif_prompts
    if ranks.rank == 0:
        output_dir = Path(settings.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "accuracy.json").write_text(json.dumps(result, indent=1))
        table = render_table(result)
        (output_dir / "table.md").write_text(table, encoding="utf-8")
        columns = {AS_IS: "as-is"} if settings.as_is else {}
        columns |= {name: name.replace("_", " ") for name in stages}
        draw_arms(general, settings.languages, columns).save(output_dir / "grid.png")
        if motifs:
            draw_motifs(motifs, [*stages]).save(output_dir / "motifs.png")
        print(table)
    return result


def _loading(folder: str) -> Any:
    return lambda: load_pipeline(folder)


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion evaluate` and `python -m altdiffusion.evaluate`."""
    return run_verb("altdiffusion evaluate", EvaluateSettings, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
