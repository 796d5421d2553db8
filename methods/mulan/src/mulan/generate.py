"""From an exported adapter to pictures: `load_pipeline`, `attach`, `encode`, `mulan generate`."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import PixArtAlphaTextProjection
from PIL import Image
from torch import Tensor, nn

from crosslingual.adapter.pipeline import write_pictures
from crosslingual.adapter.text_encoder import attach as attach_dropin
from crosslingual.adapter.text_encoder import encode_prompts
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.frozen.encoders import MultilingualEncoder, load_multilingual_encoder
from mulan.config import GenerateSettings
from mulan.export import load_adapter
from mulan.method import build_adapter


def attach(pipe: Any, adapter: str | Path, language: str | None = None) -> Any:
    """Makes any diffusers pipeline on the adapter's base read the languages of its encoder.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: whatever takes
            `text_encoder`.
        adapter: an exported folder.
        language: whose weights a seed adapter uses; its first if None.

    Returns:
        The pipeline.

    Raises:
        ValueError: the adapter's widths or pooled vector are not the base's.
    """
    return attach_module(pipe, *load_adapter(adapter, language))


def attach_module(pipe: Any, module: nn.Module, config: dict[str, Any]) -> Any:
    """`attach` for an adapter in memory."""
    family = "pixart" if "transformer" in pipe.components else "unet"
    if (config["family"] == "pixart") != (family == "pixart"):
        raise ValueError(
            f"this adapter is of the family {config['family']}, and the pipeline denoises with a "
            f"{'transformer' if family == 'pixart' else 'UNet'}: use the adapter's base"
        )
    encoder = _load_encoder(config)
    if family == "pixart":
        return _attach_projection(pipe, encoder, module, config)
    attach_dropin(pipe, encoder, module, config)
    if config["null_policy"] == "zeros":
        pipe.register_to_config(force_zeros_for_empty_prompt=True)
    if config["add_embedding"]:
        pipe.unet.add_embedding.load_state_dict(module.add_embedding.state_dict())
    return pipe


def _load_encoder(config: dict[str, Any]) -> MultilingualEncoder:
    """The encoder that the adapter was trained after."""
    if config["pool"] == "encoder":
        raise ValueError(
            "this adapter reads the pooled vector of the encoder that it was published with, which "
            "no encoder here gives: call the module with states and pooled vector of your own"
        )
    encoder = load_multilingual_encoder(
        config["text_encoder"], config["text_encoder_revision"], config["max_length"]
    )
    if encoder.width != config["encoder_width"]:
        raise ValueError(
            f"the adapter reads states of width {config['encoder_width']} and "
            f"{config['text_encoder']} gives {encoder.width}: name the encoder it was trained after"
        )
    return encoder


def _attach_projection(
    pipe: Any, encoder: MultilingualEncoder, module: nn.Module, config: dict[str, Any]
) -> Any:
    """PixArt: the encoder as it is, and the adapter in the place of the caption projection, all in
    classes of transformers and diffusers, so that the saved pipeline loads without this package.
    """
    transformer = pipe.transformer
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    if width != config["width"]:
        raise ValueError(
            f"the adapter gives states of width {config['width']}, but this transformer takes "
            f"{width}: use the adapter's base"
        )
    place = {"device": transformer.device, "dtype": transformer.dtype}
    projection = PixArtAlphaTextProjection(encoder.width, width)
    projection.load_state_dict(module.state_dict())
    transformer.caption_projection = projection.to(**place).requires_grad_(False)
    transformer.register_to_config(caption_channels=encoder.width)
    tokenizer = encoder.tokenizer
    tokenizer.model_max_length = encoder.max_length
    pipe.register_modules(text_encoder=encoder.model.to(**place), tokenizer=tokenizer)
    return pipe


@torch.no_grad()
def encode(
    adapter: str | Path,
    prompts: list[str],
    negative_prompts: list[str] | None = None,
    *,
    language: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Keyword arguments for a pipeline on the adapter's base, loaded with `text_encoder=None`.

    The encoder is loaded for it and let go: sampling holds the base's denoiser and VAE alone.

    Args:
        adapter: an exported folder.
        prompts: in any language of the encoder.
        negative_prompts: as many; the empty prompt by the adapter's null policy if None.
        language: whose weights a seed adapter uses; its first if None.
        device: where they are encoded.
        dtype: of the weights, and of what is returned.

    Raises:
        ValueError: the adapter changes the base as well, so that it must be attached.
    """
    module, config = load_adapter(adapter, language)
    if config["family"] == "pixart" or config["add_embedding"]:
        raise ValueError(
            f"{adapter} changes a layer of the base too: attach it, take pipe.encode_prompt(...), "
            "and set pipe.text_encoder to None"
        )
    encoder = _load_encoder(config)
    encoder.model.to(device, dtype)
    encoded = encode_prompts(encoder, module.to(device, dtype), prompts, negative_prompts)
    if config["null_policy"] == "zeros" and negative_prompts is None:
        for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
            encoded[name] = torch.zeros_like(encoded[name])
    return encoded


def load_pipeline(path: str, base: str | None = None, language: str | None = None) -> Any:
    """The adapter's base (or another of its family) with the adapter attached."""
    module, config = load_adapter(path, language)
    pipe = _load_base(config, base or config["base"], None if base else config["base_revision"])
    return attach_module(pipe, module, config)


def _load_base(config: dict[str, Any], base: str, revision: str | None, **parts: Any) -> Any:
    """The base without its English text encoders, whose place is taken anyway."""
    names = ("text_encoder", "text_encoder_2") if config["family"] == "sdxl" else ("text_encoder",)
    return load_base(base, revision, **dict.fromkeys(names), **parts)


def draw(
    adapter: nn.Module,
    config: dict[str, Any],
    model: nn.Module | None,
    prompts: list[str],
    seed: int = 0,
) -> Image.Image:
    """A strip of pictures of an adapter in training, one a prompt; `model` is the denoiser where
    one is loaded.
    """
    frozen = build_adapter(config)  # a copy: attaching freezes what it attaches
    frozen.load_state_dict(adapter.state_dict())
    part = "transformer" if config["family"] == "pixart" else "unet"
    parts = {} if model is None else {part: model}
    pipe = _load_base(config, config["base"], config["base_revision"], **parts)
    device = getattr(pipe, part).device
    pipe = attach_module(pipe.to(device), frozen.to(device), config)
    generator = torch.Generator().manual_seed(seed)
    pictures = pipe(
        prompts,
        num_inference_steps=20,
        guidance_scale=config["guidance_scale"],
        generator=generator,
    ).images
    if model is not None and part == "transformer":
        model.caption_projection = None  # training projects before it
    strip = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip


def generate(settings: GenerateSettings) -> Path:
    """Writes pictures, a folder a prompt; see `crosslingual.adapter.pipeline.write_pictures`."""
    return write_pictures(settings, partial(load_pipeline, language=settings.language))


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan generate`."""
    return run_verb("mulan generate", GenerateSettings, generate, argv)


if __name__ == "__main__":
    sys.exit(main())
