"""`mulan evaluate`: text accuracy by language on the testbed, with the arms that it is measured
against.

mulan evaluate --adapter runs/mulan/adapter --output_dir runs/mulan --languages en de fr ja
torchrun --nproc_per_node 2 -m mulan.evaluate ...      # ranks share the arms
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
from mulan.config import EvaluateSettings
from mulan.export import load_adapter
from mulan.generate import load_pipeline


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Writes accuracy.json and grid.png and returns what accuracy.json says.

    A seed adapter reads each language by its own weights, so it is tested in those that it has.

    Raises:
        ValueError: the adapter's base is not the testbed's, whose pictures the judge can read, or a
            seed adapter has no weights for a language.
    """
    ranks = start_processes()
    adapter, config = load_adapter(settings.adapter)
    if not config["base"].startswith("testbed:"):
        raise ValueError(
            f"the judge reads the testbed's pictures alone; this adapter's base is {config['base']}"
        )
    languages, is_seed = settings.languages, config["variant"] == "seed"
    unknown = [name for name in languages if is_seed and name not in config["languages"]]
    if unknown:
        raise ValueError(
            f"this adapter has no weights for {unknown[0]}; it has {', '.join(config['languages'])}"
        )
    arms = [("en", "as_is"), *((name, "as_is") for name in languages if name != "en")]
    pipes = {"as_is": lambda: load_base(config["base"])}
    for name in languages:
        arm = f"mulan-{name}" if is_seed else "mulan"
        arms.append((name, arm))
        chosen = name if is_seed else None
        pipes[arm] = lambda chosen=chosen: load_pipeline(settings.adapter, language=chosen)
    scenes = sample_scenes(settings.split, settings.num_prompts, settings.seed + 1)
    judged = judge_arms(pipes, arms, scenes, seed=settings.seed, ranks=ranks)
    judged = {(name, arm.split("-")[0]): items for (name, arm), items in judged.items()}
    accuracy = {arm: text_accuracy(items) for arm, items in judged.items()}
    result = {
        "english": accuracy["en", "as_is"],
        "languages": {
            name: {arm: accuracy[name, arm] for arm in ("as_is", "mulan")} for name in languages
        },
        "trained": config["languages"],
        "trainable": sum(parameter.numel() for parameter in adapter.parameters()),
        "num_prompts": settings.num_prompts,
        "split": settings.split,
        "seed": settings.seed,
    }
    if ranks.rank == 0:
        output_dir = Path(settings.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "accuracy.json").write_text(json.dumps(result, indent=1))
        columns = {"as_is": "as-is", "mulan": "with MuLan"}
        draw_arms(judged, languages, columns).save(output_dir / "grid.png")
        print(
            f"English {result['english']:.3f}; "
            + ", ".join(f"{k} {v['mulan']:.3f}" for k, v in result["languages"].items())
        )
    return result


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan evaluate` and `python -m mulan.evaluate`."""
    return run_verb("mulan evaluate", EvaluateSettings, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
