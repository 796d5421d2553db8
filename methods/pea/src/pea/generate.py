"""From an exported adapter to pictures: `load_pipeline`, `attach`, and `pea generate`."""

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from crosslingual.adapter.pipeline import GenerateSettings, write_pictures
from crosslingual.adapter.text_encoder import attach as attach_dropin
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.frozen.encoders import load_multilingual_encoder
from pea.export import load_adapter
from pea.method import build_adapter


def attach(pipe: Any, adapter: str | Path) -> Any:
    """Makes any diffusers pipeline on the adapter's base read the adapter's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: whatever takes
            `text_encoder`.
        adapter: an exported folder.

    Returns:
        The pipeline.

    Raises:
        ValueError: the adapter's cross-attention width or pooled vector is not the UNet's.
    """
    module, config = load_adapter(adapter)
    return attach_module(pipe, module, config)


def attach_module(pipe: Any, module: nn.Module, config: dict[str, Any]) -> Any:
    """`attach` for an adapter in memory."""
    encoder = load_multilingual_encoder(
        config["text_encoder"], config["text_encoder_revision"], config["max_length"]
    )
    return attach_dropin(pipe, encoder, module, config)


def load_pipeline(path: str, base: str | None = None) -> Any:
    """The adapter's base (or another of its family) with the adapter attached."""
    module, config = load_adapter(path)
    pipe = load_base(base or config["base"], None if base else config["base_revision"])
    return attach_module(pipe, module, config)


def draw(
    adapter: nn.Module, config: dict[str, Any], unet: nn.Module, prompts: list[str], seed: int = 0
) -> Image.Image:
    """A strip of pictures of an adapter in training, one a prompt."""
    frozen = build_adapter(config)  # a copy: attaching freezes what it attaches
    frozen.load_state_dict(adapter.state_dict())
    pipe = attach_module(
        load_base(config["base"], config["base_revision"], unet=unet),
        frozen.to(unet.device),
        config,
    )
    generator = torch.Generator().manual_seed(seed)
    pictures = pipe(
        prompts,
        num_inference_steps=20,
        guidance_scale=config["guidance_scale"],
        generator=generator,
    ).images
    strip = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip


def generate(settings: GenerateSettings) -> Path:
    """Writes pictures, a folder a prompt; see `crosslingual.adapter.pipeline.write_pictures`."""
    return write_pictures(settings, load_pipeline)


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea generate`."""
    return run_verb("pea generate", GenerateSettings, generate, argv)


if __name__ == "__main__":
    sys.exit(main())
