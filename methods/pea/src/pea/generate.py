"""From an exported adapter to pictures: `load_pipeline`, `attach`, and `pea generate`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from crosslingual.dropin import attach as attach_dropin
from crosslingual.encoders import load_multilingual_encoder
from crosslingual.encoders import load_pipeline as load_base
from crosslingual.settings import parse_settings, run_command
from pea.config import GenerateSettings
from pea.export import load_adapter


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
    return attach_dropin(
        pipe, encoder, module, width=config["width"], pooled_width=config["pooled_width"]
    )


def load_pipeline(path: str, base: str | None = None) -> Any:
    """The adapter's base (or another of its family) with the adapter attached."""
    module, config = load_adapter(path)
    pipe = load_base(base or config["base"], None if base else config["base_revision"])
    return attach_module(pipe, module, config)


def draw(
    adapter: nn.Module, config: dict[str, Any], unet: nn.Module, prompts: list[str], seed: int = 0
) -> Image.Image:
    """A strip of pictures of an adapter in training, one a prompt."""
    pipe = attach_module(
        load_base(config["base"], config["base_revision"], unet=unet), adapter, config
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
    """Writes pictures in GenEval's layout: OUT/00000/metadata.jsonl and samples/0000.png, a folder
    a prompt.
    """
    if settings.adapter is None and settings.pretrained_model_name_or_path is None:
        raise ValueError(
            "give --adapter, an exported folder, or --pretrained_model_name_or_path for a bare base"
        )
    guidance_scale = settings.guidance_scale
    if settings.adapter is None:
        pipe = load_base(settings.pretrained_model_name_or_path)
    else:
        pipe = load_pipeline(settings.adapter, settings.pretrained_model_name_or_path)
        guidance_scale = guidance_scale or load_adapter(settings.adapter)[1]["guidance_scale"]
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
    options = {"height": settings.height, "width": settings.width, "guidance_scale": guidance_scale}
    output_dir = Path(settings.output_dir)
    for number, prompt in enumerate(settings.prompt):
        folder = output_dir / f"{number:05d}"
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        pictures = pipe(
            prompt,
            negative_prompt=settings.negative_prompt,
            num_inference_steps=settings.num_inference_steps,
            num_images_per_prompt=settings.num_images_per_prompt,
            generator=torch.Generator().manual_seed(settings.seed),
            **{name: value for name, value in options.items() if value is not None},
        ).images
        for index, picture in enumerate(pictures):
            picture.save(folder / "samples" / f"{index:04d}.png")
            print(folder / "samples" / f"{index:04d}.png")
        metadata = {"prompt": prompt, "adapter": settings.adapter, "seed": settings.seed}
        (folder / "metadata.jsonl").write_text(
            json.dumps(metadata, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return output_dir


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea generate`."""
    words = sys.argv[1:] if argv is None else argv

    def command() -> None:
        generate(parse_settings(GenerateSettings, words, prog="pea generate"))

    return run_command(command)
