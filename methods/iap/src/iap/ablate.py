"""`iap ablate`: what the abstract leaves open, trained arm by arm under one budget, as one table.

iap ablate --config configs/testbed.yaml --train_data runs/testbed/features --output_dir runs/ablate

Every arm sees as many steps of as many captions; the seconds stand beside it. An arm that has a
result.json is not trained again: a stopped ablation goes on by the same command.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from crosslingual.stages import Stages
from crosslingual.verbs import run_verb
from iap.config import AblateSettings, TrainSettings

ARMS: dict[str, dict[str, Any]] = {
    "local": {},
    "local, kept queries": {"english_draws": 1},
    "full": {"branch": "full"},
    "full, noise": {"branch": "full", "noise_weight": 1.0},
    "full, third of the steps": {"branch": "full", "max_train_steps": 1 / 3},
    "local, cosine": {"distance": "cosine"},
    "local, smooth L1": {"distance": "smooth_l1"},
    "local, not normalised": {"normalise": False},
    "local, down": {"layers": ["down"]},
    "local, mid": {"layers": ["mid"]},
    "local, up": {"layers": ["up"]},
    "local, LoRA": {"train_encoder": "lora"},
    "text-space MSE": {"objective": "text"},
}
"""Name of an arm to what it changes; `max_train_steps` is a share of the others'."""


def arm_settings(settings: AblateSettings, name: str) -> dict[str, Any]:
    """The settings of an arm's `iap train`.

    Raises:
        ValueError: there is no such arm.
    """
    if name not in ARMS:
        raise ValueError(f"no arm {name!r}; there are {'; '.join(ARMS)}")
    shared = {f.name: getattr(settings, f.name) for f in dataclasses.fields(TrainSettings)}
    changes = dict(ARMS[name])
    if "max_train_steps" in changes:
        changes["max_train_steps"] = round(changes["max_train_steps"] * settings.max_train_steps)
    values = {**shared, **changes}
    values["checkpointing_steps"] = values["max_train_steps"]
    return {key: value for key, value in values.items() if value not in (None, [])}


def run_arm(settings: AblateSettings, name: str, stages: Stages) -> dict[str, Any]:
    """Trains and judges an arm, or reads what it came to; writes result.json."""
    folder = Path(settings.output_dir) / name.replace(" ", "-").replace(",", "")
    path = folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text())
    train = {**arm_settings(settings, name), "output_dir": folder / "run"}
    if (folder / "run" / "latest").is_file():
        train["resume_from_checkpoint"] = "latest"
    stages.say(f"{name}: {train['max_train_steps']} steps")
    seconds = stages.run("train", **train)
    stages.run(
        "evaluate",
        adapter=folder / "run" / "encoder",
        output_dir=folder,
        num_prompts=settings.num_prompts,
        split=settings.split,
        seed=settings.seed,
        baselines=False,
    )
    judged = json.loads((folder / "accuracy.json").read_text())["languages"]
    result = {"accuracy": {language: row["iap"] for language, row in judged.items()}}
    result |= {"steps": train["max_train_steps"], "seconds": round(seconds, 1)}
    path.write_text(json.dumps(result, indent=1))
    return result


def render_table(results: dict[str, dict[str, Any]]) -> str:
    """The ablation in Markdown, an arm a row."""
    languages = list(next(iter(results.values()))["accuracy"])
    lines = [f"| arm | steps | seconds | {' | '.join(languages)} | mean |"]
    lines.append("|---|" + "---:|" * (len(languages) + 3))
    for name, result in results.items():
        found = [result["accuracy"][language] for language in languages]
        cells = [f"{value:.2f}" for value in (*found, sum(found) / len(found))]
        lines.append(
            f"| {name} | {result['steps']} | {result['seconds']:.0f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def ablate(settings: AblateSettings) -> Path:
    """Runs every arm and writes and prints the table."""
    output_dir = Path(settings.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    stages = Stages("iap", settings.num_processes)
    names = settings.arms or list(ARMS)
    for name in names:
        arm_settings(settings, name)  # a wrong name is an error before anything is trained
    results = {name: run_arm(settings, name, stages) for name in names}
    table = render_table(results)
    (output_dir / "ablation.md").write_text(table + "\n")
    print(table)
    return output_dir / "ablation.md"


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap ablate`."""
    return run_verb("iap ablate", AblateSettings, ablate, argv)


if __name__ == "__main__":
    sys.exit(main())
