"""Loads an exported pipeline (`load_pipeline`), or only its text encoder (`attach`)."""

from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from altdiffusion.artifact import build_pipeline, read_config
from altdiffusion.settings import TrainSettings
from altdiffusion.text.encoder import load_text_encoder, tell_diffusers
from crosslingual.adapter.pipeline import (
    GenerateSettings,
    draw_strip,
    set_text_encoder,
    write_pictures,
)
from crosslingual.folders import check_folder
from crosslingual.frozen.base import Base


def attach(pipe: Any, text_encoder: str | Path) -> Any:
    """Gives a pipeline only the trained text encoder and its tokenizer.

    For pipelines around an exported UNet (img2img, inpainting, ControlNet on the same base, LoRA):
    a UNet that was not trained to read this encoder draws nothing sensible with it.

    Args:
        pipe: any diffusers pipeline on Stable Diffusion 1.x or 2.x; changed in place.
        text_encoder: a folder from `train-text`, an exported pipeline's folder, or a hub id.

    Returns:
        The pipeline.

    Raises:
        FileNotFoundError: there is no such text encoder.
        ValueError: its width is not the UNet's, or the base needs a pooled vector.
    """
    encoder = load_text_encoder(str(text_encoder))
    tell_diffusers(encoder)
    return set_text_encoder(pipe, encoder.model, encoder.tokenizer, width=encoder.width)


def load_pipeline(path: str, base: str | None = None) -> Any:
    """Loads an exported pipeline, every model frozen and strictly loaded.

    Args:
        path: the folder.
        base: None or the pipeline's own base, since its UNet and text encoder belong together.

    Raises:
        FileNotFoundError: the folder holds no exported pipeline.
        ValueError: `base` is another base, or a file is not what the folder's mark says.
    """
    config = read_config(path)
    if base is not None and base != config["base"]:
        raise ValueError(
            f"{path} is a whole pipeline, made of {config['base']}: leave out another base"
        )
    check_folder(path)
    return attach(Base.open(path).load_pipeline(with_text=False), path)


def draw(unet: nn.Module, settings: TrainSettings) -> Image.Image:
    """Draws a strip of pictures with a UNet in training, one per validation prompt."""
    pipe = build_pipeline(settings, unet).to(unet.device)
    return draw_strip(pipe, settings.validation_prompts, settings.guidance_scale)


def generate(settings: GenerateSettings) -> Path:
    """Writes pictures, one folder per prompt."""
    return write_pictures(settings, load_pipeline, read_config)
