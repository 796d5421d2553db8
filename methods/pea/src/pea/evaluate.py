"""`pea evaluate`: text accuracy by language on the testbed, with the arms that it is measured
against.

pea evaluate --adapter runs/pea/adapter --output_dir runs/pea --languages de fr ja
torchrun --nproc_per_node 2 -m pea.evaluate ...      # ranks share the arms
"""

import json
import sys
from pathlib import Path
from typing import Any

from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.training.processes import start_processes
from crosslingual_worlds.drawn.evaluation import draw_arms, judge_arms, text_accuracy
from crosslingual_worlds.drawn.world import sample_scenes
from pea.config import EvaluateSettings
from pea.export import load_adapter
from pea.generate import load_pipeline


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Writes accuracy.json and grid.png and returns what accuracy.json says."""
    adapter, config = load_adapter(settings.adapter)
    if not config["base"].startswith("testbed:"):
        raise ValueError(
            f"the judge reads the testbed's pictures alone; this adapter's base is {config['base']}"
        )
    ranks = start_processes()
    languages = settings.languages
    judged = judge_arms(
        {
            "as_is": lambda: load_base(config["base"]),
            "pea": lambda: load_pipeline(settings.adapter),
        },
        [("en", "as_is"), *((name, arm) for name in languages for arm in ("as_is", "pea"))],
        sample_scenes(settings.split, settings.num_prompts, settings.seed + 1),
        seed=settings.seed,
        ranks=ranks,
    )
    accuracy = {arm: text_accuracy(items) for arm, items in judged.items()}
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
        columns = {"as_is": "as-is", "pea": "with PEA"}
        draw_arms(judged, languages, columns).save(output_dir / "grid.png")
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
