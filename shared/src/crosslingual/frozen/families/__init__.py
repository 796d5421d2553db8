"""The families of diffusion bases; a new one is a file here and a line in `FAMILIES`."""

from difflib import get_close_matches
from pathlib import Path
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

# Bases that read many languages by themselves, by how their classes in diffusers begin.
MULTILINGUAL = {
    "Flux2": "FLUX.2 reads many languages by Mistral or Qwen3",
    "HunyuanDiT": "HunyuanDiT reads Chinese by a bilingual CLIP and other languages by mT5",
    "Kolors": "Kolors reads Chinese and English by ChatGLM3",
    "QwenImage": "Qwen-Image reads many languages by Qwen2.5-VL",
    "ZImage": "Z-Image reads many languages by Qwen3",
}
# Their classes by how their ids on the hub begin, which are refused without a network.
MULTILINGUAL_IDS = {
    "black-forest-labs/FLUX.2": "Flux2",
    "Tencent-Hunyuan/HunyuanDiT": "HunyuanDiT",
    "Kwai-Kolors/Kolors": "Kolors",
    "Qwen/Qwen-Image": "QwenImage",
    "Tongyi-MAI/Z-Image": "ZImage",
}


def refuse_multilingual(name: str, base: str) -> None:
    """Refuses, by a ValueError, a base whose pipeline's or denoiser's class has that name, if its
    text encoder is multilingual already.
    """
    for start, reason in MULTILINGUAL.items():
        if name.startswith(start):
            raise ValueError(
                f"{base} needs no method for other languages: {reason}; methods here are for bases "
                "that read English alone"
            )


def refuse_multilingual_id(base: str) -> None:
    """Does the same for a base by its hub id, where no folder has that name."""
    for start, name in MULTILINGUAL_IDS.items():
        if base.startswith(start) and not Path(base).is_dir():
            refuse_multilingual(name, base)


def find_family(config: Config, base: str) -> Family:
    """The family of a denoiser's config.

    Raises:
        ValueError: none knows it, or its base is multilingual already.
    """
    found = str(config.get("_class_name"))
    is_kolors = config.get("encoder_hid_dim") and config.get("addition_embed_type") == "text_time"
    refuse_multilingual("Kolors" if is_kolors else found, base)
    for family in FAMILIES:
        if family.recognises(config):
            return family
    known = {family.name: family.model_class for family in FAMILIES}
    nearest = get_close_matches(found, known.values(), 1)
    raise ValueError(
        f"{base} denoises with a {found} of a kind that no family here knows: there are "
        + ", ".join(f"{name} ({model})" for name, model in known.items())
        + (f"; nearest is {nearest[0]}" if nearest else "")
    )


def call_options(pipe: Any) -> dict[str, Any]:
    """What to call a diffusers pipeline with besides its prompts: its family says, and an adapter
    that reads them there. Nothing for a pipeline that is not of diffusers, such as translate-test,
    which asks for those of the pipeline inside.
    """
    from diffusers import DiffusionPipeline

    if not isinstance(pipe, DiffusionPipeline):
        return {}
    config = getattr(pipe.components.get("text_encoder"), "config", None)
    adapter = getattr(config, "adapter_config", None) or {}
    return family_of(pipe)[0].call_options(pipe) | adapter.get("call_options", {})


def family_of(pipe: Any) -> tuple[Family, Any]:
    """The family of a diffusers pipeline, and the model that denoises in it.

    Raises:
        ValueError: none knows it.
    """
    refuse_multilingual(type(pipe).__name__, f"a {type(pipe).__name__}")
    for part in {family.part: None for family in FAMILIES}:
        if pipe.components.get(part) is not None:
            model = pipe.components[part]
            plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
            config = {**model.config, "_class_name": type(plain).__name__}
            return find_family(config, type(pipe).__name__), model
    raise ValueError(f"a {type(pipe).__name__} has no denoising model that any family here knows")
