"""The verbs of `template`; the short ones are implemented here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosslingual.cli.verbs import Verb

if TYPE_CHECKING:
    from crosslingual.adapter.settings import GenerateSettings
    from crosslingual.training.settings import ExportSettings
    from template.settings import EvaluateSettings, FeaturesSettings, TrainSettings

DESCRIPTION = (
    "Text-space MSE: states equal to the English encoder's, position by position.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)
VERBS = {
    "demo": Verb(
        "run the whole method on the embedded models, in minutes",
        "crosslingual.cli.demo:run_demo",
        "template.settings:DemoSettings",
    ),
    "features": Verb(
        "pass shards through the frozen text encoders, once",
        "template.verbs:features",
        "template.settings:FeaturesSettings",
    ),
    "train": Verb(
        "train an adapter on features or shards",
        "template.train:train",
        "template.settings:TrainSettings",
    ),
    "export": Verb(
        "write a checkpoint's adapter as safetensors",
        "template.verbs:export",
        "crosslingual.training.settings:ExportSettings",
    ),
    "generate": Verb(
        "draw pictures from prompts",
        "template.verbs:generate",
        "crosslingual.adapter.settings:GenerateSettings",
    ),
    "evaluate": Verb(
        "measure text accuracy by language on the testbed",
        "template.verbs:evaluate",
        "template.settings:EvaluateSettings",
    ),
    "info": Verb(
        "count parameters and memory, from shapes alone",
        "template.verbs:info",
        "template.settings:TrainSettings",
        takes_any_config=True,
    ),
}


def features(settings: "FeaturesSettings") -> Path:
    """Writes the features of `shards` to `features_dir`; a second run resumes where the first one
    stopped.
    """
    from crosslingual.features.compute import write_run_features
    from crosslingual.training.processes import start_processes
    from template.data import frozen_parts

    ranks = start_processes()
    parts = frozen_parts(settings, ranks)
    return write_run_features(settings, parts, ranks, has_pictures=False)


def export(settings: "ExportSettings") -> Path:
    """Exports a checkpoint's adapter to a folder with safetensors."""
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.cli.settings import read_settings
    from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state
    from template.artifact import adapter_config, save_adapter
    from template.settings import TrainSettings

    checkpoint = find_checkpoint(settings.checkpoint)
    with claim_artifact(settings.output_dir, "template"):
        config = adapter_config(read_settings(TrainSettings, settings_file(checkpoint)))
        folder = save_adapter(trained_state(checkpoint), config, settings.output_dir)
    print(folder)
    return folder


def generate(settings: "GenerateSettings") -> Path:
    """Writes pictures, one folder per prompt."""
    from crosslingual.adapter.pipeline import write_pictures
    from template.pipeline import load_pipeline

    return write_pictures(settings, load_pipeline)


def evaluate(settings: "EvaluateSettings") -> dict[str, Any]:
    """Writes accuracy.json, table.md and grid.png; returns the content of accuracy.json."""
    from crosslingual.evaluation.generation import Arm, evaluate_pipelines
    from template.artifact import load_adapter
    from template.pipeline import load_pipeline

    adapter, config = load_adapter(settings.adapter)
    num = sum(parameter.numel() for parameter in adapter.parameters())
    return evaluate_pipelines(
        settings,
        config["base"],
        {"template": Arm("text space", lambda language: load_pipeline(settings.adapter))},
        trained=config["languages"],
        kind="parallel captions",
        note=f"{num:,} trainable parameters",
        further={"trainable": num},
    )


def info(settings: "TrainSettings") -> dict[str, int]:
    """Prints and returns a run's parameter counts and memory, from shapes alone: it reads no
    weights, and needs no network for known bases and encoders.
    """
    from crosslingual.frozen.base import Base
    from crosslingual.frozen.memory import adapter_info
    from template.artifact import adapter_config
    from template.method import build_adapter

    config = adapter_config(settings)
    title = f"{config['base']}, width {config['width']}; training holds the adapter alone"
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    return adapter_info(title, settings, config, build_adapter, base=base, through_denoiser=False)
