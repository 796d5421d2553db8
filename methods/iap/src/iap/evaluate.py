"""`iap evaluate`: text accuracy by language on the testbed, with the arms that it is measured
against.

iap evaluate --adapter runs/testbed/iap/encoder --output_dir runs/testbed
torchrun --nproc_per_node 2 -m iap.evaluate ...      # ranks share the arms
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
from iap.config import EvaluateSettings
from iap.export import load_encoder
from iap.generate import load_pipeline

COLUMNS = {"as_is": "as-is", "iap": "with IAP"}


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Writes accuracy.json and grid.png and returns what accuracy.json says."""
    encoder, _, config = load_encoder(settings.adapter)
    if not config["base"].startswith("testbed:"):
        raise ValueError(
            f"the judge reads the testbed's pictures alone; this encoder's base is {config['base']}"
        )
    ranks = start_processes()
    languages = settings.languages or config["languages"]
    arms = [(language, "iap") for language in languages]
    if settings.baselines:
        arms += [("en", "as_is"), *((language, "as_is") for language in languages)]
    judged = judge_arms(
        {
            "as_is": lambda: load_base(config["base"]),
            "iap": lambda: load_pipeline(settings.adapter),
        },
        arms,
        sample_scenes(settings.split, settings.num_prompts, settings.seed + 1),
        seed=settings.seed,
        ranks=ranks,
    )
    accuracy = {arm: text_accuracy(items) for arm, items in judged.items()}
    result = {
        "english": accuracy.get(("en", "as_is")),
        "languages": {
            name: {arm: accuracy[name, arm] for arm in COLUMNS if (name, arm) in accuracy}
            for name in languages
        },
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "num_prompts": settings.num_prompts,
        "split": settings.split,
        "seed": settings.seed,
    }
    if ranks.rank == 0:
        output_dir = Path(settings.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "accuracy.json").write_text(json.dumps(result, indent=1))
        if settings.baselines:
            draw_arms(judged, languages, COLUMNS).save(output_dir / "grid.png")
        print("; ".join(f"{name} {arm} {share:.3f}" for (name, arm), share in accuracy.items()))
    return result


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap evaluate` and `python -m iap.evaluate`."""
    return run_verb("iap evaluate", EvaluateSettings, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
