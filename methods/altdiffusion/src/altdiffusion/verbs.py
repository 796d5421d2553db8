"""The verbs of `altdiffusion`; the short ones are implemented here."""

from pathlib import Path
from typing import TYPE_CHECKING

from crosslingual.cli.verbs import Verb

if TYPE_CHECKING:
    from altdiffusion.settings import (
        ExportSettings,
        FeaturesSettings,
        ImportSettings,
        TrainSettings,
    )
    from altdiffusion.text.settings import TrainTextSettings
    from crosslingual.frozen.base import Base

DESCRIPTION = (
    "AltDiffusion (arXiv 2308.09991): a multilingual text encoder, and a UNet that reads it.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)
_S = "altdiffusion.settings"
VERBS = {
    "demo": Verb(
        "run the whole method on the embedded models, in minutes",
        "crosslingual.cli.demo:run_demo",
        f"{_S}:DemoSettings",
    ),
    "train-text": Verb(
        "train a multilingual student to match CLIP's text encoder",
        "altdiffusion.text.train:train_text",
        "altdiffusion.text.settings:TrainTextSettings",
    ),
    "evaluate-retrieval": Verb(
        "measure Recall@K of AltCLIP by language",
        "altdiffusion.text.evaluate:evaluate_retrieval",
        "altdiffusion.text.settings:EvaluateRetrievalSettings",
    ),
    "features": Verb(
        "pass shards through VAE and text encoder, once",
        "altdiffusion.verbs:features",
        f"{_S}:FeaturesSettings",
    ),
    "train": Verb(
        "train a stage of the UNet on features or shards",
        "altdiffusion.train:train",
        f"{_S}:TrainSettings",
    ),
    "export": Verb(
        "write a checkpoint as a pipeline's folder",
        "altdiffusion.verbs:export",
        f"{_S}:ExportSettings",
    ),
    "import": Verb(
        "write the authors' pipeline as one that stock diffusers loads",
        "altdiffusion.verbs:import_pipeline",
        f"{_S}:ImportSettings",
    ),
    "generate": Verb(
        "draw pictures from prompts",
        "altdiffusion.pipeline:generate",
        "crosslingual.adapter.settings:GenerateSettings",
    ),
    "evaluate": Verb(
        "measure text accuracy and culture score on the testbed",
        "altdiffusion.evaluate:evaluate",
        f"{_S}:EvaluateSettings",
    ),
    "info": Verb(
        "count parameters and memory, from shapes alone",
        "altdiffusion.verbs:info",
        f"{_S}:TrainSettings",
        takes_any_config=True,
    ),
}


def features(settings: "FeaturesSettings") -> Path:
    """Writes the features of `shards` to `features_dir`; a second run resumes where the first one
    stopped.
    """
    from altdiffusion.data import FrozenParts
    from crosslingual.features.compute import write_run_features
    from crosslingual.training.processes import start_processes

    ranks = start_processes()
    return write_run_features(settings, FrozenParts(settings, ranks.device), ranks)


def export(settings: "ExportSettings") -> Path:
    """Exports a checkpoint: the pipeline of `train`, or the models of `train-text`."""
    import torch

    from altdiffusion.artifact import KIND, save_trained
    from altdiffusion.settings import TrainSettings
    from altdiffusion.text.artifact import claim_models, load_parts, save_models
    from altdiffusion.text.settings import TrainTextSettings
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.cli.settings import read_settings, read_yaml
    from crosslingual.frozen.weights import frozen_tensors
    from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state

    checkpoint = find_checkpoint(settings.checkpoint)
    path, folder = settings_file(checkpoint), settings.output_dir
    if "teacher" in read_yaml(path):
        with claim_models(folder):
            text = read_settings(TrainTextSettings, path)
            teacher, student = load_parts(text, torch.device("cpu"))
            state = frozen_tensors(student.model) | trained_state(checkpoint)
            folder = save_models(folder, state, student, teacher)
    else:
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        with claim_artifact(folder, "altdiffusion", KIND):
            trained = read_settings(TrainSettings, path)
            folder = save_trained(trained_state(checkpoint), trained, folder, dtype[settings.dtype])
    print(folder)
    return folder


def import_pipeline(settings: "ImportSettings") -> Path:
    """Converts the authors' AltDiffusion to a pipeline's folder."""
    from altdiffusion.artifact import KIND
    from altdiffusion.published import import_published
    from crosslingual.adapter.artifact import claim_artifact

    with claim_artifact(settings.output_dir, "altdiffusion", KIND):
        folder = import_published(settings)
    print(folder)
    return folder


def info(settings: "TrainSettings | TrainTextSettings") -> dict[str, int]:
    """Prints and returns a run's parameter counts and memory, from shapes alone: it reads no
    weights, and needs no network for known bases and encoders.
    """
    from altdiffusion.settings import TrainSettings

    return _count_unet(settings) if isinstance(settings, TrainSettings) else _count_text(settings)


def _count_unet(settings: "TrainSettings") -> dict[str, int]:
    import torch

    from altdiffusion.unet import open_base, set_trainable
    from crosslingual.frozen.base import Conditioning
    from crosslingual.frozen.memory import estimate, predict_on_meta, print_info

    base = open_base(settings)
    counts = base.count_parameters()
    with torch.device("meta"):
        unet = set_trainable(base.denoiser_on_meta(), settings)
    rows, length = settings.train_batch_size, settings.max_length or base.text.length

    def forward(dtype: torch.dtype) -> torch.Tensor:
        states = torch.empty(rows, length, base.text.width, dtype=dtype)
        return predict_on_meta(base, unet, settings, Conditioning(states))

    checkpoint = unet.enable_gradient_checkpointing if settings.gradient_checkpointing else None
    found = estimate(unet, forward, settings, checkpoint=checkpoint)
    frozen = {"UNet, frozen": found.frozen} if found.frozen else {}
    frozen["VAE (features alone)"] = counts["vae"]
    frozen["text encoder (features alone)"] = _count_encoder(settings, base)
    title = (
        f"{base.id}, {settings.stage}, {rows} pictures of {settings.resolution} pixels on a GPU"
        f"{', gradient checkpointing' if settings.gradient_checkpointing else ''}"
    )
    return print_info(title, found, frozen, trains="UNet")


def _count_encoder(settings: "TrainSettings", base: "Base") -> int:
    import torch

    from altdiffusion.text.encoder import new_student, student_places
    from altdiffusion.unet import check_width
    from crosslingual.frozen.encoders import encoder_on_meta

    place = student_places(settings.text_encoder)[0]
    if Path(place).is_dir() or settings.starts_from is None:
        try:
            check_width(settings, base)
            return encoder_on_meta(place, settings.text_encoder_revision)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; run `altdiffusion train-text` first, or set --starts_from to the "
                "encoder that it will start from"
            ) from error
    with torch.device("meta"):  # train-text has not written it yet
        student = new_student(settings.starts_from, base.text.width)
    return sum(parameter.numel() for parameter in student.parameters())


def _count_text(settings: "TrainTextSettings") -> dict[str, int]:
    import torch

    from altdiffusion.text.encoder import new_student
    from crosslingual.frozen.clip import clip_config, clip_on_meta
    from crosslingual.frozen.memory import estimate, print_info
    from crosslingual.frozen.weights import freeze_embeddings

    teacher, revision = settings.teacher, settings.teacher_revision
    width = clip_config(teacher, revision).text_config.hidden_size
    with torch.device("meta"):
        student = new_student(settings.text_encoder, width, settings.text_encoder_revision)
    if not settings.train_embeddings:
        freeze_embeddings(student)
    rows = settings.train_batch_size
    length = settings.max_length or min(77, student.config.max_position_embeddings - 2)

    def forward(dtype: torch.dtype) -> torch.Tensor:
        ids = torch.empty(rows, length, dtype=torch.int64, device="meta")
        return student(ids).pooler_output

    is_recomputed = settings.gradient_checkpointing
    checkpoint = student.activation_checkpointing_enable if is_recomputed else None
    found = estimate(student, forward, settings, checkpoint=checkpoint)
    title = (
        f"{settings.text_encoder} after {teacher}, {settings.stage}, {rows} sentences of {length} "
        f"tokens on a GPU{', gradient checkpointing' if is_recomputed else ''}; the targets are "
        "computed once, so that training holds the student alone"
    )
    frozen = {"teacher (targets alone)": clip_on_meta(teacher, revision)}
    frozen |= {"word embeddings": found.frozen} if found.frozen else {}
    return print_info(title, found, frozen, trains="text encoder")
