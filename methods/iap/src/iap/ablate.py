"""`iap ablate`: what the abstract leaves open, trained arm by arm under one budget, as one table.

iap ablate --config configs/testbed.yaml --train_data runs/testbed/features --output_dir runs/ablate

Arms take as many steps of as many captions, but for those whose name says another share; their
seconds stand beside them. An arm that has a result.json is not trained again: a stopped ablation
goes on by the same command.
"""

import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from crosslingual.cli.stages import Stages
from crosslingual.cli.verbs import run_verb
from iap.config import AblateSettings, TrainSettings

ARMS: dict[str, dict[str, Any]] = {
    "local": {},
    "local, kept queries": {"english_draws": 1},
    "local, kept queries, twice the steps": {"english_draws": 1, "max_train_steps": 2.0},
    "full": {"branch": "full"},
    "full, noise": {"branch": "full", "noise_weight": 1.0},
    "full, third of the steps": {"branch": "full", "max_train_steps": 1 / 3},
    "local, cosine": {"distance": "cosine"},
    "local, smooth L1": {"distance": "smooth_l1"},
    "local, not normalised": {"normalise": False},
    "local, kept queries, not normalised": {"english_draws": 1, "normalise": False},
    "local, down": {"layers": ["down"]},
    "local, mid": {"layers": ["mid"]},
    "local, up": {"layers": ["up"]},
    "local, LoRA": {"train_encoder": "lora"},
    "text-space MSE": {"objective": "text"},
    "text-space MSE, twice the steps": {"objective": "text", "max_train_steps": 2.0},
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


def run_arm(settings: AblateSettings, name: str, seed: int, stages: Stages) -> dict[str, Any]:
    """Trains and judges an arm under a seed, or reads what it came to; writes result.json."""
    place = name.replace(" ", "-").replace(",", "")
    folder = Path(settings.output_dir) / place / f"seed-{seed}"
    path = folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text())
    train = {**arm_settings(settings, name), "output_dir": folder / "run", "seed": seed}
    if (folder / "run" / "latest").is_file():
        train["resume_from_checkpoint"] = "latest"
    stages.say(f"{name}, seed {seed}: {train['max_train_steps']} steps")
    seconds = stages.run("train", **train)
    stages.run(
        "evaluate",
        adapter=folder / "run" / "encoder",
        output_dir=folder,
        num_prompts=settings.num_prompts,
        split=settings.split,
        seed=seed,
        baselines=False,
    )
    judged = json.loads((folder / "accuracy.json").read_text())["languages"]
    result = {"accuracy": {language: row["iap"] for language, row in judged.items()}}
    result |= {"steps": train["max_train_steps"], "seconds": round(seconds, 1)}
    path.write_text(json.dumps(result, indent=1))
    return result


def render_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The ablation in Markdown, an arm a row: the mean over languages of each seed, and over all;
    seconds are those of the median seed.
    """
    num_seeds = len(next(iter(results.values())))
    seeds = " | ".join(f"seed {seed}" for seed in range(num_seeds))
    lines = [f"| arm | steps | seconds | {seeds} | mean |"]
    lines.append("|---|" + "---:|" * (num_seeds + 3))
    for name, runs in results.items():
        found = [statistics.mean(run["accuracy"].values()) for run in runs]
        cells = " | ".join(f"{value:.2f}" for value in (*found, statistics.mean(found)))
        seconds = statistics.median(run["seconds"] for run in runs)
        lines.append(f"| {name} | {runs[0]['steps']} | {seconds:.0f} | {cells} |")
    return "\n".join(lines)


def ablate(settings: AblateSettings) -> Path:
    """Runs every arm and writes and prints the table."""
    output_dir = Path(settings.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    stages = Stages("iap", settings.num_processes)
    names = settings.arms or list(ARMS)
    for name in names:
        arm_settings(settings, name)  # a wrong name is an error before anything is trained
    seeds = range(settings.num_seeds)
    results = {name: [run_arm(settings, name, s, stages) for s in seeds] for name in names}
    table = render_table(results)
    (output_dir / "ablation.md").write_text(table + "\n")
    print(table)
    return output_dir / "ablation.md"


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap ablate`."""
    return run_verb("iap ablate", AblateSettings, ablate, argv)


if __name__ == "__main__":
    sys.exit(main())
