"""The verbs of `iap`; the short ones are implemented here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosslingual.cli.verbs import Verb

if TYPE_CHECKING:
    from crosslingual.adapter.settings import GenerateSettings, MergeSettings
    from iap.settings import EvaluateSettings, ExportSettings, FeaturesSettings, TrainSettings

DESCRIPTION = (
    "IAP (arXiv 2305.11540): a text encoder of another language, aligned through pictures.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)
VERBS = {
    "demo": Verb(
        "run the whole method on the embedded models, in minutes",
        "crosslingual.cli.demo:run_demo",
        "iap.settings:DemoSettings",
    ),
    "features": Verb(
        "pass shards through the frozen parts, once",
        "iap.verbs:features",
        "iap.settings:FeaturesSettings",
    ),
    "train": Verb(
        "train a text encoder on features or shards",
        "iap.train:train",
        "iap.settings:TrainSettings",
    ),
    "export": Verb(
        "write a checkpoint's encoder as stock diffusers loads it",
        "iap.verbs:export",
        "iap.settings:ExportSettings",
    ),
    "merge": Verb(
        "write several encoders as one: averaged, by task arithmetic or TIES",
        "iap.verbs:merge",
        "crosslingual.adapter.settings:MergeSettings",
    ),
    "generate": Verb(
        "draw pictures from prompts",
        "iap.verbs:generate",
        "crosslingual.adapter.settings:GenerateSettings",
    ),
    "evaluate": Verb(
        "measure text accuracy by language on the testbed",
        "iap.verbs:evaluate",
        "iap.settings:EvaluateSettings",
    ),
    "ablate": Verb(
        "compare branch, layers and distance: one table, one row per arm",
        "iap.ablate:ablate",
        "iap.settings:AblateSettings",
    ),
    "info": Verb(
        "count parameters and memory, from shapes alone",
        "iap.verbs:info",
        "iap.settings:TrainSettings",
        takes_any_config=True,
    ),
}


def features(settings: "FeaturesSettings") -> Path:
    """Writes the features of `shards` to `features_dir`; a second run resumes where the first one
    stopped.
    """
    from crosslingual.features.compute import write_run_features
    from crosslingual.training.processes import start_processes
    from iap.data import TripletParts

    ranks = start_processes()
    return write_run_features(settings, TripletParts(settings, ranks.device), ranks)


def export(settings: "ExportSettings") -> Path:
    """Exports a checkpoint's encoder to a folder that stock libraries load."""
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.cli.settings import read_settings
    from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state
    from iap.artifact import save_trained
    from iap.settings import TrainSettings

    checkpoint = find_checkpoint(settings.checkpoint)
    with claim_artifact(settings.output_dir, "iap"):
        trained = read_settings(TrainSettings, settings_file(checkpoint))
        state, folder = trained_state(checkpoint), settings.output_dir
        folder = save_trained(trained, state, folder, pipeline=settings.pipeline)
    print(folder)
    return folder


def merge(settings: "MergeSettings") -> Path:
    """Merges exported encoders, whose LoRA is in their weights already, into one."""
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.adapter.merge import merge_exports
    from iap.artifact import initial_state, save_encoder
    from iap.encoder import TRAINED_BY, load_state

    with claim_artifact(settings.output_dir, "iap"):
        state, config = merge_exports(settings, load_state, initial_state, TRAINED_BY)
        folder = save_encoder(state, config, settings.output_dir)
    print(folder)
    return folder


def generate(settings: "GenerateSettings") -> Path:
    """Writes pictures, one folder per prompt."""
    from crosslingual.adapter.pipeline import write_pictures
    from iap.pipeline import load_pipeline

    return write_pictures(settings, load_pipeline)


def evaluate(settings: "EvaluateSettings") -> dict[str, Any]:
    """Writes accuracy.json, table.md and grid.png; returns the content of accuracy.json."""
    from crosslingual.evaluation.generation import Arm, evaluate_pipelines
    from iap.artifact import load_encoder
    from iap.pipeline import load_pipeline

    encoder, _, config = load_encoder(settings.adapter)
    num = sum(parameter.numel() for parameter in encoder.parameters())
    return evaluate_pipelines(
        settings,
        config["base"],
        {"iap": Arm("IAP", lambda language: load_pipeline(settings.adapter))},
        trained=config["languages"],
        kind=None,
        note=f"An encoder of {num:,} parameters.",
        baselines=settings.baselines,
        further={"parameters": num},
    )


def info(settings: "TrainSettings") -> dict[str, int]:
    """Prints and returns a run's parameter counts and memory, from shapes alone: it reads no
    weights, and needs no network for known bases and encoders.
    """
    from crosslingual.frozen.memory import print_info
    from iap.artifact import encoder_config
    from iap.data import open_base
    from iap.step import estimate_memory

    config = encoder_config(settings)
    base = open_base(settings)
    found = estimate_memory(settings, base, config["altclip"], config["max_length"])
    counts = base.count_parameters()
    frozen = {"denoiser": counts["denoiser"], "VAE": counts["vae"]}
    if found.frozen:
        frozen["target encoder, frozen"] = found.frozen
    title = (
        f"{config['base']}, encoder from {config['text_encoder']} ({settings.train_encoder}), "
        f"width {config['width']}; training from features holds the encoder and {found.held:,} "
        "parameters of the denoiser"
    )
    return print_info(title, found, frozen, trains="encoder")
