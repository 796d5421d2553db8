"""From an exported pipeline to pictures: `load_pipeline`, `attach`, and `altdiffusion generate`."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from altdiffusion.config import TrainSettings
from altdiffusion.export import build_pipeline, read_config
from altdiffusion.text_encoder import load_text_encoder
from crosslingual.adapter.pipeline import GenerateSettings, write_pictures
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base


def attach(pipe: Any, text_encoder: str | Path) -> Any:
    """Gives a pipeline the trained text encoder and its tokenizer, alone.

    For pipelines around an exported UNet (img2img, inpainting, ControlNet on the same base, LoRA):
    a UNet that was not trained to read this encoder draws nothing sensible with it.

    Args:
        pipe: whatever takes `text_encoder` and `tokenizer`.
        text_encoder: a folder of `train-text`, or an exported pipeline's, or a hub id.

    Returns:
        The pipeline.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: its width is not the UNet's, or the base wants a pooled vector.
    """
    encoder = load_text_encoder(str(text_encoder))
    config = pipe.unet.config
    if config.cross_attention_dim != encoder.width or config.addition_embed_type is not None:
        raise ValueError(
            f"{text_encoder} gives states of width {encoder.width} without a pooled vector, and "
            f"this UNet takes width {config.cross_attention_dim}"
            + (" with one" if config.addition_embed_type else "")
            + ": use a UNet trained for it"
        )
    encoder.model.config.use_attention_mask = True
    pipe.text_encoder = encoder.model.to(pipe.unet.device, pipe.unet.dtype)
    pipe.tokenizer = encoder.tokenizer
    return pipe


def load_pipeline(path: str, base: str | None = None) -> Any:
    """An exported pipeline, every model frozen and strictly loaded.

    Args:
        path: the folder.
        base: None or the base that it was made of: a UNet and its text encoder belong together.

    Raises:
        FileNotFoundError: no exported pipeline there.
        ValueError: another base.
    """
    config = read_config(path)
    if base is not None and base != config["base"]:
        raise ValueError(
            f"{path} is a whole pipeline, made of {config['base']}: leave out another base"
        )
    encoder = load_text_encoder(path)
    return load_base(path, text_encoder=encoder.model, tokenizer=encoder.tokenizer)


def draw(unet: nn.Module, settings: TrainSettings, seed: int = 0) -> Image.Image:
    """A strip of pictures of a UNet in training, one a validation prompt."""
    encoder = load_text_encoder(
        settings.text_encoder, settings.text_encoder_revision, settings.max_length
    )
    base, revision = settings.pretrained_model_name_or_path, settings.revision
    pipe = build_pipeline(base, revision, unet, encoder).to(unet.device)
    pictures = pipe(
        settings.validation_prompts,
        num_inference_steps=20,
        guidance_scale=settings.guidance_scale,
        generator=torch.Generator().manual_seed(seed),
    ).images
    strip = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip


def generate(settings: GenerateSettings) -> Path:
    """Writes pictures, a folder a prompt; see `crosslingual.adapter.pipeline.write_pictures`."""
    if settings.adapter is not None and settings.guidance_scale is None:
        recommended = read_config(settings.adapter)["guidance_scale"]
        settings = dataclasses.replace(settings, guidance_scale=recommended)
    return write_pictures(settings, load_pipeline)


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion generate`."""
    return run_verb("altdiffusion generate", GenerateSettings, generate, argv)


if __name__ == "__main__":
    sys.exit(main())
