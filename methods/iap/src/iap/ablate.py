"""`iap ablate`: trains one arm for each choice that the paper leaves open, under one budget.

iap ablate --config configs/testbed.yaml --train_data runs/testbed/features --output_dir runs/ablate

All arms take the same number of steps, except those whose name says otherwise; the table shows
their seconds. An arm that has a result.json is not trained again, so the same command resumes a
stopped ablation.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from crosslingual.cli import guard
from crosslingual.files import hold_folder, read_fields, write_json, write_text
from iap.data import open_base
from iap.settings import AblateSettings, TrainSettings

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
"""The settings that each arm changes; `max_train_steps` is a multiple of the common number."""


def arm_settings(settings: AblateSettings, name: str) -> dict[str, Any]:
    """Returns the settings of an arm's `iap train`.

    Raises:
        ValueError: no arm has this name.
    """
    if name not in ARMS:
        raise ValueError(f"no arm {name!r}; there are {'; '.join(ARMS)}")
    steps = round(ARMS[name].get("max_train_steps", 1) * settings.max_train_steps)
    shared = {f.name: getattr(settings, f.name) for f in dataclasses.fields(TrainSettings)}
    values = {**shared, **ARMS[name], "max_train_steps": steps, "checkpointing_steps": steps}
    return {key: value for key, value in values.items() if value not in (None, [])}


def run_arm(settings: AblateSettings, name: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates an arm with a seed, or reads its earlier result; writes result.json."""
    place = name.replace(" ", "-").replace(",", "")
    folder = Path(settings.output_dir) / place / f"seed-{seed}"
    path = folder / "result.json"
    if path.is_file():
        fields = {"accuracy": dict[str, float], "steps": int, "seconds": float}
        return read_fields(path, fields, "remove it to train the arm again")
    train = {**arm_settings(settings, name), "output_dir": folder / "run", "seed": seed}
    if (folder / "run" / "latest").is_file():
        train["resume_from_checkpoint"] = "latest"
    print(f"{name}, seed {seed}: {train['max_train_steps']} steps", flush=True)
    started = time.monotonic()
    run_verb("train", settings.num_processes, train)
    seconds = time.monotonic() - started
    evaluation = {
        "adapter": folder / "run" / "encoder",
        "output_dir": folder,
        "num_prompts": settings.num_prompts,
        "split": settings.split,
        "seed": seed,
        "baselines": False,
    }
    run_verb("evaluate", settings.num_processes, evaluation)
    judged = json.loads((folder / "accuracy.json").read_text())["languages"]
    result = {"accuracy": {language: row["iap"] for language, row in judged.items()}}
    result |= {"steps": train["max_train_steps"], "seconds": round(seconds, 1)}
    write_json(path, result)
    return result


def run_verb(verb: str, num_processes: int | None, settings: dict[str, Any]) -> None:
    """Runs `iap VERB` in new processes: by default one per core, at most 2.

    Raises:
        ValueError: the verb failed; its own message is printed above.
    """
    number = num_processes or min(2, os.cpu_count() or 1)
    command = [sys.executable, guard.__file__, str(os.getpid()), sys.executable, "-m"]
    if number > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc_per_node={number}", "-m"]
    command += ["iap", verb]
    for name, value in settings.items():
        command += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode != 0:
        raise ValueError(f"iap {verb} ended with code {done.returncode}; its message stands above")


def render_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Renders the ablation as Markdown, one row per arm: the mean over languages for each seed, the
    mean over seeds, and the median seed's seconds.
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
    names = settings.arms or list(ARMS)
    for name in names:
        arm_settings(settings, name)  # a wrong name is an error before anything is trained
    open_base(settings)  # and so is an unsuitable base
    seeds = range(settings.num_seeds)
    with hold_folder(output_dir):
        results = {name: [run_arm(settings, name, seed) for seed in seeds] for name in names}
        table = render_table(results)
        write_text(output_dir / "ablation.md", table + "\n")
    print(table)
    return output_dir / "ablation.md"
