"""Loads the models that the text half starts from, and writes its results: the student, and the
whole AltCLIP, which joins the student with its teacher's vision tower.

FOLDER/text_encoder    a `transformers.AltCLIPTextModel` with its tokenizer, for diffusers
FOLDER/altclip         a `transformers.AltCLIPModel` with tokenizer and image processor
"""

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn

from altdiffusion.text.encoder import TextEncoder, build_student, save_text_encoder
from altdiffusion.text.settings import TrainTextSettings
from crosslingual.adapter.artifact import load_strict
from crosslingual.folders import claim_folder, publish_folder
from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual.frozen.encoders import encoder_config
from crosslingual.frozen.weights import freeze_embeddings, load_frozen, open_tokenizer

KIND = "encoder"


def load_parts(settings: TrainTextSettings, device: torch.device) -> tuple[FrozenCLIP, TextEncoder]:
    """Loads the frozen teacher and the student to train."""
    teacher = load_clip(settings.teacher, settings.teacher_revision)
    teacher.model.to(device)
    torch.manual_seed(settings.seed)
    width = teacher.model.config.text_config.hidden_size
    start = settings.text_encoder, settings.text_encoder_revision
    name, revision = start if settings.init_from is None else (settings.init_from, None)
    student = build_student(name, width, revision, settings.max_length)
    if not settings.train_embeddings:
        freeze_embeddings(student.model)
    return teacher, student


def save_models(
    folder: str | Path, state: dict[str, Tensor], student: TextEncoder, teacher: FrozenCLIP
) -> Path:
    """Writes `text_encoder` and `altclip` into a folder, each complete or not at all.

    Args:
        folder: the run's folder, or any other.
        state: the tensors of the trained student, all of them.
        student: gives shape and tokenizer; its own weights are not used.
        teacher: the CLIP.

    Returns:
        The folder of the text encoder.
    """
    # a fresh module: at ZeRO stage 3 this process has only a part of each tensor
    model = type(student.model)(student.model.config)
    load_strict(model, state)
    trained = TextEncoder(model, student.tokenizer, student.max_length)
    clip = FrozenCLIP(**{**vars(teacher), "model": teacher.model.to("cpu")})
    with claim_models(folder):
        encoder, altclip = model_folders(folder)
        publish_folder(altclip, lambda place: save_altclip(place, trained, clip), kind=KIND)
        return publish_folder(encoder, lambda place: save_text_encoder(trained, place), kind=KIND)


def model_folders(folder: str | Path) -> tuple[Path, Path]:
    """The folders of the text encoder and of AltCLIP in a folder of `save_models`."""
    return Path(folder) / "text_encoder", Path(folder) / "altclip"


def claim_models(folder: str | Path) -> contextlib.ExitStack:
    """Locks both folders until `save_models` has written them, or refuses at once."""
    with contextlib.ExitStack() as claims:
        for place in model_folders(folder):
            claims.enter_context(claim_folder(place, kind=KIND))
        return claims.pop_all()


def build_altclip(student: nn.Module, clip: nn.Module) -> nn.Module:
    """Builds an AltCLIPModel from a student and a CLIPModel without its text tower.

    CLIP's own text projection is kept after the student, whose vector replaces the projection's
    former input.
    """
    from transformers import AltCLIPConfig, AltCLIPModel

    vision = clip.config.vision_config.to_dict() | {"model_type": "altclip_vision_model"}
    config = AltCLIPConfig(
        text_config=student.config.to_dict(),
        vision_config=vision,
        projection_dim=clip.config.projection_dim,
    )
    model = AltCLIPModel(config)
    kept = {k: v for k, v in clip.state_dict().items() if not k.startswith("text_model.")}
    texts = {f"text_model.{name}": tensor for name, tensor in student.state_dict().items()}
    load_strict(model, {**kept, **texts})
    return model.eval().requires_grad_(False)


def save_altclip(folder: Path, encoder: TextEncoder, clip: FrozenCLIP) -> None:
    """Writes model, tokenizer and image processor."""
    from transformers import CLIPImageProcessorPil

    model = build_altclip(encoder.model, clip.model)
    save_text_encoder(TextEncoder(model, encoder.tokenizer, encoder.max_length), folder)
    size = clip.image_size
    CLIPImageProcessorPil(
        image_mean=clip.image_mean,
        image_std=clip.image_std,
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
    ).save_pretrained(folder)


def load_altclip(name: str) -> FrozenCLIP:
    """Loads an AltCLIP's folder, or a CLIP for comparison, frozen, with its preprocessing.

    Raises:
        FileNotFoundError: there is no such model, or it has no safetensors.
        ValueError: it is neither an AltCLIPModel nor a CLIP, or keys are missing or unexpected.
    """
    from transformers import AltCLIPModel, CLIPImageProcessorPil

    config = encoder_config(name)
    if config.model_type != "altclip":
        return load_clip(name)
    model = load_frozen(AltCLIPModel, name)
    tokenizer = open_tokenizer(name)
    constants, _ = CLIPImageProcessorPil.get_image_processor_dict(name)
    mean, std = (tuple(map(float, constants[part])) for part in ("image_mean", "image_std"))
    size, length = config.vision_config.image_size, min(77, int(tokenizer.model_max_length))
    return FrozenCLIP(name, model, tokenizer, mean, std, int(size), length)
