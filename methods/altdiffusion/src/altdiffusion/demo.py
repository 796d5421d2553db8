"""`altdiffusion demo`: all stages on the embedded models, as a user would run them, verb by verb.

parallel text -> student; pictures -> shards -> features -> concept alignment -> quality improvement
-> pictures of general prompts and of motifs, judged after each stage.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from altdiffusion.config import DemoSettings
from crosslingual.cli.stages import Stages, make_demo_folder
from crosslingual.cli.verbs import run_verb

TEXT = {"train_batch_size": 64, "max_train_steps": 250, "learning_rate": 2e-3}
COMMON = {"caption_dropout": 0.1, "use_ema": True, "ema_decay": 0.98, "train_batch_size": 24}
STAGES = {
    "concept_alignment": {"max_train_steps": 270, "learning_rate": 5e-3},
    "quality_improvement": {"max_train_steps": 260, "learning_rate": 1e-3},
}
"""Guidance tuning is left to run.sh: captions are dropped here in both stages, and a verb more is
half a minute.
"""


def write_data(settings: DemoSettings, folder: Path) -> None:
    """Writes parallel text, general pictures, and motifs among as many general ones."""
    from crosslingual.data.shards import write_shards
    from crosslingual.data.sources import SOURCES

    languages = ["en", *settings.languages]
    sets: dict[str, dict[str, Any]] = {
        "text": {"num_samples": settings.num_texts, "pictures": False},
        "general": {"num_samples": settings.num_samples},
        "mixed": {
            "num_samples": settings.num_motif_samples,
            "num_motif_samples": settings.num_motif_samples,
        },
    }
    for name, options in sets.items():
        records = SOURCES["world"](languages=languages, seed=settings.seed, **options)
        write_shards(records, folder / f"{name}-shards")


def train_stages(stages: Stages, settings: DemoSettings, folder: Path) -> list[Path]:
    """Trains the UNet stage after stage; returns the pipelines' folders."""
    common = {"languages": ["en", *settings.languages], "seed": settings.seed}
    common["text_encoder"] = folder / "text" / "text_encoder"
    for name in ("general", "mixed"):
        places = {"shards": folder / f"{name}-shards", "features_dir": folder / f"{name}-features"}
        stages.run("features", **common, **places)
    pipelines: list[Path] = []
    for name, recipe in STAGES.items():
        data = "general" if name == "concept_alignment" else "mixed"
        what = "keys and values of cross-attention" if not pipelines else "the whole UNet"
        stages.say(f"{name.replace('_', ' ')}: {what}, {recipe['max_train_steps']} steps")
        given = {**common, **COMMON, **recipe, "stage": name}
        given |= {"train_data": folder / f"{data}-features", "output_dir": folder / name}
        given["checkpointing_steps"] = recipe["max_train_steps"]
        if pipelines:
            given["unet"] = pipelines[-1]
        stages.run("train", **given)
        pipelines.append(folder / name / "pipeline")
    return pipelines


def demo(settings: DemoSettings) -> Path:
    """Runs every stage, prints the table and returns the last pipeline's folder."""
    folder = make_demo_folder(settings.output_dir)
    stages = Stages("altdiffusion", settings.num_processes)
    languages = ["en", *settings.languages]
    stages.say(f"text, pictures and motifs in {', '.join(languages)}")
    write_data(settings, folder)
    stages.say(f"teacher learning: {TEXT['max_train_steps']} steps, no pictures")
    text = {**TEXT, "train_data": folder / "text-shards", "output_dir": folder / "text"}
    text |= {"seed": settings.seed, "checkpointing_steps": TEXT["max_train_steps"]}
    stages.run("train_text", **text)
    stages.say("features: latents and text states, once")
    pipelines = train_stages(stages, settings, folder)
    stages.say(f"pictures: {settings.num_prompts} held-out prompts a language, and its motif")
    stages.run(
        "evaluate",
        adapters=pipelines,
        output_dir=folder,
        languages=languages,
        num_prompts=settings.num_prompts,
        num_motif_prompts=settings.num_motif_prompts,
        seed=settings.seed,
    )
    stages.say("done")
    result = json.loads((folder / "accuracy.json").read_text())
    result["seconds"] = time.monotonic() - stages.started
    (folder / "demo.json").write_text(json.dumps(result, indent=1))
    print(f"pictures: {folder / 'grid.png'}, {folder / 'motifs.png'}\npipeline: {pipelines[-1]}")
    return pipelines[-1]


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion demo`."""
    return run_verb("altdiffusion demo", DemoSettings, demo, argv)


if __name__ == "__main__":
    sys.exit(main())
