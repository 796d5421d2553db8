"""The verbs of `mulan`; the short ones are implemented here."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosslingual.cli.verbs import Verb

if TYPE_CHECKING:
    from crosslingual.training.settings import ExportSettings
    from mulan.settings import (
        EvaluateSettings,
        FeaturesSettings,
        GenerateSettings,
        ImportSettings,
        TrainSettings,
    )

DESCRIPTION = (
    "MuLan (arXiv 2412.01271): an adapter learns from English; its encoder brings the languages.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)
TRAIN = "mulan.settings:TrainSettings"
VERBS = {
    "demo": Verb(
        "run the whole method on the embedded models, in minutes",
        "crosslingual.cli.demo:run_demo",
        "mulan.settings:DemoSettings",
    ),
    "features": Verb(
        "pass shards through the frozen parts, once",
        "mulan.verbs:features",
        "mulan.settings:FeaturesSettings",
    ),
    "train": Verb("train an adapter on features or shards", "mulan.train:train", TRAIN),
    "export": Verb(
        "write a checkpoint's adapter as safetensors",
        "mulan.verbs:export",
        "crosslingual.training.settings:ExportSettings",
    ),
    "import": Verb(
        "write a published state dict as an adapter",
        "mulan.verbs:import_adapter",
        "mulan.settings:ImportSettings",
    ),
    "generate": Verb(
        "draw pictures from prompts", "mulan.verbs:generate", "mulan.settings:GenerateSettings"
    ),
    "evaluate": Verb(
        "measure text accuracy by language on the testbed",
        "mulan.verbs:evaluate",
        "mulan.settings:EvaluateSettings",
    ),
    "info": Verb(
        "count parameters and memory, from shapes alone",
        "mulan.verbs:info",
        TRAIN,
        takes_any_config=True,
    ),
}


def features(settings: "FeaturesSettings") -> Path:
    """Writes the features of `shards` to `features_dir`; a second run resumes where the first one
    stopped.
    """
    from crosslingual.features.compute import write_run_features
    from crosslingual.training.processes import start_processes
    from mulan.artifact import check_alignment
    from mulan.data import frozen_parts

    check_alignment(settings)
    ranks = start_processes()
    parts = frozen_parts(settings, ranks)
    return write_run_features(settings, parts, ranks, has_pictures=settings.has_pictures)


def export(settings: "ExportSettings") -> None:
    """Exports a checkpoint's adapter to a folder with safetensors."""
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.cli.settings import read_settings
    from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state
    from mulan.artifact import adapter_config, frozen_tensors, save_adapter, start_adapter
    from mulan.data import support_memory
    from mulan.settings import TrainSettings

    checkpoint = find_checkpoint(settings.checkpoint)
    with claim_artifact(settings.output_dir, "mulan"):
        trained = read_settings(TrainSettings, settings_file(checkpoint))
        config = adapter_config(trained)
        started = start_adapter(trained, config, memory=support_memory(trained))
        state = frozen_tensors(started) | trained_state(checkpoint)
        print(save_adapter(state, config, settings.output_dir))


def import_adapter(settings: "ImportSettings") -> None:
    """Converts a published state dict to an adapter's folder."""
    from crosslingual.adapter.artifact import claim_artifact
    from mulan.published import import_published

    with claim_artifact(settings.output_dir, "mulan"):
        print(import_published(settings))


def generate(settings: "GenerateSettings") -> Path:
    """Writes pictures, one folder per prompt."""
    from crosslingual.adapter.pipeline import write_pictures
    from mulan.pipeline import load_pipeline

    return write_pictures(settings, partial(load_pipeline, language=settings.language))


def evaluate(settings: "EvaluateSettings") -> dict[str, Any]:
    """Writes accuracy.json, table.md and grid.png; returns the content of accuracy.json, which
    names several adapters mulan, mulan-2 and so on.

    A seed adapter has weights for each language, so it is tested only in its own languages.

    Raises:
        ValueError: the adapters cannot be compared, no world has the base, or a seed adapter has no
            weights for a language.
    """
    from crosslingual.evaluation.generation import Arm, evaluate_pipelines
    from mulan.artifact import load_adapter
    from mulan.pipeline import load_pipeline

    adapters = [load_adapter(folder) for folder in settings.adapter]
    base, trained = adapters[0][1]["base"], adapters[0][1]["languages"]
    if any((config["base"], config["languages"]) != (base, trained) for _, config in adapters):
        raise ValueError("adapters on different bases or languages do not go into one table")
    if len(settings.head) != len(adapters):
        raise ValueError(f"name each of the {len(adapters)} adapters: --head NAME NAME ...")
    arms = {}
    for number, (folder, (_, config)) in enumerate(zip(settings.adapter, adapters, strict=True)):
        is_seed = config["variant"] == "seed"
        unknown = [name for name in settings.languages if is_seed and name not in trained]
        if unknown:
            raise ValueError(
                f"this adapter has no weights for {unknown[0]}; it has {', '.join(trained)}"
            )

        def load(language: str, folder: str = folder, is_seed: bool = is_seed) -> Any:
            return load_pipeline(folder, language=language if is_seed else None)

        name = f"mulan-{number + 1}" if number else "mulan"
        arms[name] = Arm(settings.head[number], load, by_language=is_seed)
    sizes = [
        sum(parameter.numel() for parameter in adapter.parameters()) for adapter, _ in adapters
    ]
    return evaluate_pipelines(
        settings,
        base,
        arms,
        trained=trained,
        kind="captions",
        note=f"{' and '.join(f'{size:,}' for size in dict.fromkeys(sizes))} trainable parameters",
        further={"trainable": sizes[0]},
    )


def info(settings: "TrainSettings") -> dict[str, int]:
    """Prints and returns a run's parameter counts and memory, from shapes alone: it reads no
    weights, and needs no network for known bases and encoders.
    """
    import torch

    from crosslingual.frozen.base import Base
    from crosslingual.frozen.memory import adapter_info
    from mulan.artifact import adapter_config
    from mulan.method import build_adapter

    config = adapter_config(settings)
    held = "the adapter and the denoiser alone" if settings.has_pictures else "the adapter alone"
    title = (
        f"{config['base']}, variant {settings.variant}, width {config['width']}; training from "
        f"features holds {held}"
    )

    def call(adapter: torch.nn.Module, states: torch.Tensor) -> Any:
        if settings.variant == "seed":
            return adapter(states, torch.zeros(len(states), dtype=torch.long))
        return adapter(states)

    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    through = settings.has_pictures
    return adapter_info(
        title, settings, config, build_adapter, base=base, through_denoiser=through, call=call
    )
