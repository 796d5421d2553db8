"""The verbs of `pea`; the short ones are implemented here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosslingual.cli.verbs import Verb

if TYPE_CHECKING:
    from crosslingual.adapter.settings import GenerateSettings, MergeSettings
    from crosslingual.training.settings import ExportSettings
    from pea.settings import EvaluateSettings, FeaturesSettings, ImportSettings, TrainSettings

DESCRIPTION = (
    "PEA-Diffusion (arXiv 2311.17086): an adapter, distilled through the frozen UNet.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)
VERBS = {
    "demo": Verb(
        "run the whole method on the embedded models, in minutes",
        "crosslingual.cli.demo:run_demo",
        "pea.settings:DemoSettings",
    ),
    "features": Verb(
        "pass shards through the frozen parts, once",
        "pea.verbs:features",
        "pea.settings:FeaturesSettings",
    ),
    "train": Verb(
        "train an adapter on features or shards", "pea.train:train", "pea.settings:TrainSettings"
    ),
    "export": Verb(
        "write a checkpoint's adapter as safetensors",
        "pea.verbs:export",
        "crosslingual.training.settings:ExportSettings",
    ),
    "import": Verb(
        "write a published state dict as an adapter",
        "pea.verbs:import_adapter",
        "pea.settings:ImportSettings",
    ),
    "merge": Verb(
        "write several adapters as one: averaged, by task arithmetic or TIES",
        "pea.verbs:merge",
        "crosslingual.adapter.settings:MergeSettings",
    ),
    "generate": Verb(
        "draw pictures from prompts",
        "pea.verbs:generate",
        "crosslingual.adapter.settings:GenerateSettings",
    ),
    "evaluate": Verb(
        "measure text accuracy by language on the testbed",
        "pea.verbs:evaluate",
        "pea.settings:EvaluateSettings",
    ),
    "info": Verb(
        "count parameters and memory, from shapes alone",
        "pea.verbs:info",
        "pea.settings:TrainSettings",
        takes_any_config=True,
    ),
}


def features(settings: "FeaturesSettings") -> Path:
    """Writes the features of `shards` to `features_dir`; a second run resumes where the first one
    stopped.
    """
    from crosslingual.features.compute import write_run_features
    from crosslingual.training.processes import start_processes
    from pea.data import frozen_parts

    ranks = start_processes()
    parts = frozen_parts(settings, ranks)
    return write_run_features(settings, parts, ranks, has_pictures=settings.pictures)


def export(settings: "ExportSettings") -> Path:
    """Exports a checkpoint's adapter to a folder with safetensors."""
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.cli.settings import read_settings
    from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state
    from pea.artifact import adapter_config, save_adapter
    from pea.settings import TrainSettings

    checkpoint = find_checkpoint(settings.checkpoint)
    with claim_artifact(settings.output_dir, "pea"):
        config = adapter_config(read_settings(TrainSettings, settings_file(checkpoint)))
        return _said(save_adapter(trained_state(checkpoint), config, settings.output_dir))


def import_adapter(settings: "ImportSettings") -> Path:
    """Converts a published state dict to an adapter's folder."""
    from crosslingual.adapter.artifact import claim_artifact
    from pea.published import import_published

    with claim_artifact(settings.output_dir, "pea"):
        return _said(import_published(settings))


def merge(settings: "MergeSettings") -> Path:
    """Merges exported adapters into one."""
    from crosslingual.adapter.artifact import claim_artifact, load_artifact
    from crosslingual.adapter.merge import merge_exports
    from pea.artifact import initial_adapter, save_adapter

    def load(folder: str) -> tuple[Any, Any]:
        config, state = load_artifact(folder, "pea")
        return state, config

    with claim_artifact(settings.output_dir, "pea"):
        state, config = merge_exports(settings, load, lambda c: initial_adapter(c).state_dict())
        return _said(save_adapter(state, config, settings.output_dir))


def generate(settings: "GenerateSettings") -> Path:
    """Writes pictures, one folder per prompt."""
    from crosslingual.adapter.pipeline import write_pictures
    from pea.pipeline import load_pipeline

    return write_pictures(settings, load_pipeline)


def evaluate(settings: "EvaluateSettings") -> dict[str, Any]:
    """Writes accuracy.json, table.md and grid.png; returns the content of accuracy.json."""
    from crosslingual.evaluation.generation import Arm, evaluate_pipelines
    from pea.artifact import load_adapter
    from pea.pipeline import load_pipeline

    adapter, config = load_adapter(settings.adapter)
    num = sum(parameter.numel() for parameter in adapter.parameters())
    return evaluate_pipelines(
        settings,
        config["base"],
        {"pea": Arm("PEA", lambda language: load_pipeline(settings.adapter))},
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
    from pea.artifact import adapter_config
    from pea.method import build_adapter

    config = adapter_config(settings)
    title = (
        f"{config['base']}, variant {settings.variant}, width {config['width']}; training from "
        "features holds the adapter and the UNet alone"
    )
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    return adapter_info(title, settings, config, build_adapter, base=base)


def _said(folder: Path) -> Path:
    print(folder)
    return folder
