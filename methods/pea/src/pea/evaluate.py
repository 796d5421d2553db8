"""`pea evaluate`: text accuracy by language on the testbed, with the arms that it is measured
against.

pea evaluate --adapter runs/pea/adapter --output_dir runs/pea --languages de fr ja
torchrun --nproc_per_node 2 -m pea.evaluate ...      # ranks share the arms
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from crosslingual.bases import load_pipeline as load_base
from crosslingual.processes import start_processes
from crosslingual.testbed.contact_sheet import Cell, contact_sheet
from crosslingual.testbed.evaluation import Judged, judge_prompts, text_accuracy
from crosslingual.testbed.world import sample_scenes
from crosslingual.verbs import run_verb
from pea.config import EvaluateSettings
from pea.export import load_adapter
from pea.generate import load_pipeline

Arm = tuple[str, str]  # language, and "as_is" (English: the upper bound) or "pea"


def judge_arms(settings: EvaluateSettings, rank: int, world_size: int) -> dict[Arm, list[Judged]]:
    """This rank's share of the arms."""
    _, config = load_adapter(settings.adapter)
    if not config["base"].startswith("testbed:"):
        raise ValueError(
            f"the judge reads the testbed's pictures alone; this adapter's base is {config['base']}"
        )
    scenes = sample_scenes(settings.split, settings.num_prompts, settings.seed + 1)
    arms = [
        ("en", "as_is"),
        *((language, arm) for language in settings.languages for arm in ("as_is", "pea")),
    ]
    pipes = {"as_is": load_base(config["base"]), "pea": load_pipeline(settings.adapter)}
    return {
        (language, arm): judge_prompts(pipes[arm], scenes, language, seed=settings.seed)
        for language, arm in arms[rank::world_size]
    }


def draw_grid(
    judged: dict[Arm, list[Judged]], languages: list[str], num_scenes: int = 3
) -> Image.Image:
    """A row a language: for some scenes the picture of the bare base and that with the adapter,
    prompts below.
    """
    shown = [
        i for i, item in enumerate(judged["en", "as_is"]) if item.is_right and item.scene.second
    ][:num_scenes]

    def cell(arm: Arm, index: int) -> Cell:
        item = judged[arm][index]
        return Cell(item.picture, item.prompt, arm[0], item.is_right)

    rows = [
        [cell((language, arm), index) for index in shown for arm in ("as_is", "pea")]
        for language in languages
    ]
    heads = ["as-is", "with PEA"] * len(shown)
    return contact_sheet(rows, column_heads=heads, row_heads=languages)


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Writes accuracy.json and grid.png and returns what accuracy.json says."""
    ranks = start_processes()
    shares: list[dict[Arm, list[Judged]]] = [{} for _ in range(ranks.world_size)]
    with torch.no_grad():
        dist.all_gather_object(shares, judge_arms(settings, ranks.rank, ranks.world_size))
    judged = {arm: items for share in shares for arm, items in share.items()}
    accuracy = {arm: text_accuracy(items) for arm, items in judged.items()}
    adapter, _ = load_adapter(settings.adapter)
    languages = settings.languages
    result = {
        "english": accuracy["en", "as_is"],
        "languages": {
            name: {arm: accuracy[name, arm] for arm in ("as_is", "pea")} for name in languages
        },
        "trainable": sum(parameter.numel() for parameter in adapter.parameters()),
        "num_prompts": settings.num_prompts,
        "split": settings.split,
        "seed": settings.seed,
    }
    if ranks.rank == 0:
        output_dir = Path(settings.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "accuracy.json").write_text(json.dumps(result, indent=1))
        draw_grid(judged, languages).save(output_dir / "grid.png")
        print(
            f"English {result['english']:.3f}; "
            + ", ".join(f"{k} {v['pea']:.3f}" for k, v in result["languages"].items())
        )
    return result


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea evaluate` and `python -m pea.evaluate`."""
    return run_verb("pea evaluate", EvaluateSettings, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
