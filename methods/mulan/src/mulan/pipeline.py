"""Puts an exported adapter into a pipeline, or encodes prompts into a pipeline's arguments."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import pipeline
from crosslingual.frozen.families import family_of
from crosslingual.frozen.weights import load_frozen
from mulan.artifact import load_adapter
from mulan.method import CaptionProjection


def attach(pipe: Any, adapter: str | Path, language: str | None = None) -> Any:
    """Makes any diffusers pipeline on the adapter's base read the languages of its encoder.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: any pipeline with a
            `text_encoder`. On PixArt the adapter replaces the caption projection, so that the saved
            pipeline holds only classes of diffusers and transformers.
        adapter: an exported folder.
        language: language whose weights a seed adapter uses; its first one if None.

    Returns:
        The pipeline.

    Raises:
        ValueError: the adapter's family, widths or pooled vector do not match the base's.
    """
    return attach_module(pipe, *load_adapter(adapter, language))


def attach_module(pipe: Any, module: nn.Module, config: dict[str, Any]) -> Any:
    """Does the same as `attach` for an adapter in memory. After an error the pipeline is as it
    was.
    """
    _check_pool(config)
    pipeline.refuse_offloaded(pipe)
    replaces_projection = isinstance(module, CaptionProjection)
    widths = config["width"], config["pooled_width"]
    pipeline.check_widths(pipe, *widths, inner=replaces_projection)
    family, denoiser = family_of(pipe)
    if family.name != config["family"]:
        raise ValueError(
            f"this adapter is of the family {config['family']}, and the pipeline denoises with a "
            f"{type(denoiser).__name__} of {family.name}: use the adapter's base"
        )
    with ExitStack() as undo:
        if config.get("transformer"):  # the authors' whole PixArt
            undo.callback(pipe.register_modules, transformer=pipe.transformer)
            _replace_transformer(pipe, config["transformer"])
        pipeline.attach_adapter(pipe, module, config, replaces_projection=replaces_projection)
        undo.pop_all()
    if config["add_embedding"]:  # last: an encoder that is gone leaves the pipeline as it was
        denoiser.add_embedding.load_state_dict(module.add_embedding.state_dict())
    return pipe


def _replace_transformer(pipe: Any, folder: str) -> None:
    """Puts the transformer that an adapter brings in the place of a pipeline's own."""
    from diffusers import PixArtTransformer2DModel

    own = pipe.transformer
    brought = load_frozen(PixArtTransformer2DModel, folder)
    differing = [
        name
        for name in ("in_channels", "out_channels", "sample_size", "use_additional_conditions")
        if brought.config[name] != own.config[name]
    ]
    if differing:
        raise ValueError(
            f"this adapter brings its own transformer, and its {differing[0]} is "
            f"{brought.config[differing[0]]}, not {own.config[differing[0]]}: use the adapter's "
            "base"
        )
    pipe.register_modules(transformer=brought.to(own.device, own.dtype))


def load_pipeline(path: str, base: str | None = None, language: str | None = None) -> Any:
    """Loads the adapter's base (or another one of its family) with the adapter attached."""
    return pipeline.load_adapted(*load_adapter(path, language), base, attach=attach_module)


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

    The encoder is released afterwards, so that drawing holds only denoiser and VAE in memory.

    Args:
        adapter: an exported folder.
        prompts: prompts in any language of the encoder.
        negative_prompts: one per prompt; the empty prompt by the adapter's null policy if None.
        language: language whose weights a seed adapter uses; its first one if None.
        device: device that encodes the prompts.
        dtype: precision of the weights and of the returned tensors.

    Raises:
        ValueError: the adapter also changes the base, so that it has to be attached.
    """
    module, config = load_adapter(adapter, language)
    _check_pool(config)
    if isinstance(module, CaptionProjection) or config["add_embedding"]:
        raise ValueError(
            f"{adapter} changes a layer of the base too: attach it, take pipe.encode_prompt(...), "
            "and set pipe.text_encoder to None"
        )
    encoder = pipeline.load_encoder(config)
    encoder.model.to(device, dtype)
    module = module.to(device, dtype)
    encoded = pipeline.encode_prompts(encoder, module, prompts, negative_prompts, config)
    if config["null_policy"] == "zeros" and negative_prompts is None:
        for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
            encoded[name] = torch.zeros_like(encoded[name])
    return encoded


def _check_pool(config: dict[str, Any]) -> None:
    if config["pool"] == "encoder" and config.get("pooled_policy") != "zeros":
        raise ValueError(
            "this adapter reads the pooled vector of the encoder that it was published with, which "
            "no encoder here gives: import it with --pooled_policy zeros, as its authors use it, "
            "or call the module with states and pooled vector of your own"
        )
