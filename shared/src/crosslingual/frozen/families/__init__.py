"""The families of diffusion bases; a new one is a file here and a line in `FAMILIES`."""

from difflib import get_close_matches
from typing import Any

from crosslingual.frozen.denoiser import Config, Family
from crosslingual.frozen.families.flux import Flux
from crosslingual.frozen.families.pixart import PixArt
from crosslingual.frozen.families.sana import Sana
from crosslingual.frozen.families.sd import StableDiffusion
from crosslingual.frozen.families.sd3 import StableDiffusion3
from crosslingual.frozen.families.sdxl import StableDiffusionXL

FAMILIES: list[Family] = [
    StableDiffusion(),
    StableDiffusionXL(),
    PixArt(),
    StableDiffusion3(),
    Flux(),
    Sana(),
]


def find_family(config: Config, base: str) -> Family:
    """The family of a denoiser's config.

    Raises:
        ValueError: none knows it.
    """
    for family in FAMILIES:
        if family.recognises(config):
            return family
    known = {family.name: family.model_class for family in FAMILIES}
    found = str(config.get("_class_name"))
    nearest = get_close_matches(found, known.values(), 1)
    raise ValueError(
        f"{base} denoises with a {found} of a kind that no family here knows: there are "
        + ", ".join(f"{name} ({model})" for name, model in known.items())
        + (f"; nearest is {nearest[0]}" if nearest else "")
    )


def call_options(pipe: Any) -> dict[str, Any]:
    """What to call a diffusers pipeline with besides its prompts; its family says."""
    return family_of(pipe)[0].call_options(pipe)


def family_of(pipe: Any) -> tuple[Family, Any]:
    """The family of a diffusers pipeline, and the model that denoises in it.

    Raises:
        ValueError: none knows it.
    """
    for part in {family.part: None for family in FAMILIES}:
        if pipe.components.get(part) is not None:
            model = pipe.components[part]
            plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
            config = {**model.config, "_class_name": type(plain).__name__}
            return find_family(config, type(pipe).__name__), model
    raise ValueError(f"a {type(pipe).__name__} has no denoising model that any family here knows")
