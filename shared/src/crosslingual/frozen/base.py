"""The frozen diffusion base: VAE, UNet, noise schedule, and its own English text encoder."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.frozen.published_shapes import published_shape
from crosslingual.frozen.weights import load_frozen, resolve


def model_index(base: str, revision: str | None = None) -> dict[str, Any]:
    """A pipeline's `model_index.json`."""
    folder = Path(resolve(base))
    path = folder / "model_index.json"
    if folder.exists() and not path.exists():
        raise FileNotFoundError(f"{base} is no diffusers pipeline: it has no model_index.json")
    if not folder.exists():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )

        try:
            path = Path(hf_hub_download(base, "model_index.json", revision=revision))
        except (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            ValueError,
        ) as error:
            raise FileNotFoundError(
                f"no folder and no reachable hub entry named {base!r}"
            ) from error
    return json.loads(path.read_text())


def _component_class(base: str, part: str, revision: str | None) -> type:
    import diffusers
    import transformers

    library, class_name = model_index(base, revision)[part]
    return getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name)


def load_config(base: str, part: str, revision: str | None = None) -> dict[str, Any]:
    """The config of a pipeline's part, read without its weights; that of a well-known base without
    network.
    """
    known = published_shape(base, part)
    if known is not None:
        return known
    path = Path(resolve(base)) / part / "config.json"
    if Path(resolve(base)).is_dir():
        if not path.is_file():
            raise FileNotFoundError(
                f"{base} has no {part}/config.json: is it a diffusers pipeline?"
            )
        return json.loads(path.read_text())
    model_class = _component_class(base, part, revision)
    return dict(model_class.load_config(base, subfolder=part, revision=revision))


def load_unet(base: str, revision: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """The base's UNet, frozen."""
    return load_frozen(
        _component_class(base, "unet", revision),
        base,
        subfolder="unet",
        revision=revision,
        dtype=dtype,
    )


def denoiser_part(base: str, revision: str | None = None) -> str:
    """The part that denoises: `unet`, or `transformer` (PixArt); that of a well-known base without
    network.
    """
    for part in ("unet", "transformer"):
        if published_shape(base, part) is not None:
            return part
    return "transformer" if "transformer" in model_index(base, revision) else "unet"


def load_denoiser(
    base: str, revision: str | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    """The base's UNet or transformer, frozen."""
    part = denoiser_part(base, revision)
    model_class = _component_class(base, part, revision)
    return load_frozen(model_class, base, subfolder=part, revision=revision, dtype=dtype)


def load_vae(base: str, revision: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """The base's VAE, frozen."""
    return load_frozen(
        _component_class(base, "vae", revision),
        base,
        subfolder="vae",
        revision=revision,
        dtype=dtype,
    )


def load_noise_scheduler(base: str, revision: str | None = None) -> Any:
    """The base's noise schedule, as the scheduler that training adds noise with."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_pretrained(resolve(base), subfolder="scheduler", revision=revision)


def load_pipeline(
    base: str, revision: str | None = None, dtype: torch.dtype = torch.float32, **parts: Any
) -> Any:
    """The whole base as the diffusers pipeline it names, every model frozen and strictly loaded.

    `parts` replaces components; `unet=None, vae=None` leaves them out, which suffices to encode
    prompts.
    """
    import diffusers

    index = model_index(base, revision)
    for part in ("unet", "transformer", "vae", "text_encoder", "text_encoder_2"):
        if part in index and index[part][0] and part not in parts:
            model_class = _component_class(base, part, revision)
            parts[part] = load_frozen(
                model_class, base, subfolder=part, revision=revision, dtype=dtype
            )
    if "safety_checker" in index:
        parts |= {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    pipeline_class = getattr(diffusers, index["_class_name"])
    pipe = pipeline_class.from_pretrained(resolve(base), revision=revision, dtype=dtype, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def encode_english(pipe: Any, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """A base's own text states: (B, L, D), and the pooled vectors (B, P) where the base has them
    (SDXL).
    """
    encoded = pipe.encode_prompt(
        prompts,
        device=pipe.text_encoder.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    return encoded[0], encoded[2] if len(encoded) == 4 else None
