"""Writes an adapter's folder and reads it back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import artifact
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import encoder_shape
from pea.method import build_adapter
from pea.settings import TrainSettings

CARD = """\
A PEA adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the frozen UNet
of `{base}`, distilled from the English pipeline (PEA-Diffusion, arXiv 2311.17086; variant
{variant}).

```python
{import_base}
import pea

pipe = {load_base}
pea.attach(pipe, "this/folder")
pipe("..."{call}).images[0]
```
"""


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """Builds the adapter's config.json: its shape, its base and its encoder.

    Raises:
        ValueError: the form does not suit the base.
    """
    if settings.feature_blocks and (settings.variant == "seed" or not settings.feature_weight):
        raise ValueError(
            "feature_blocks names features to match, and this run matches none: use variant "
            "published and a feature_weight above 0, or leave it out"
        )
    distils = settings.variant == "published" and settings.warm_start_share < 1
    if distils and not settings.output_weight and not settings.feature_weight:
        raise ValueError(
            "output_weight and feature_weight are 0, which leaves nothing to match: raise one"
        )
    if not settings.pictures and settings.noise_offset:
        raise ValueError("noise_offset is of noisy pictures: leave it out with --pictures false")
    if not settings.pictures and (settings.variant == "seed" or settings.warm_start_share):
        raise ValueError(
            "variant seed and a warm start learn from noisy pictures: leave out --pictures false"
        )
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    encoder_width, longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)
    config = {
        "method": "pea",
        "variant": settings.variant,
        "encoder_width": encoder_width,
        "width": base.text.width,
        "pooled_width": base.text.pooled_width,
        "hidden_width": settings.hidden_width,
        "rank": settings.rank,
        "max_length": settings.max_length or longest,
        "null_policy": "adapter",
        "base": base.id,
        "base_revision": base.revision,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
        "seed": settings.seed if settings.init_from is None else None,
    }
    if base.family.adapted_options:
        config["call_options"] = dict(base.family.adapted_options)
    with torch.device("meta"):  # refuses what the form cannot do, before anything is loaded
        build_adapter(config)
    return config


def save_adapter(
    state: dict[str, Tensor], config: dict[str, Any], folder: str | Path, results: list[dict] = ()
) -> Path:
    """Writes config.json, model.safetensors and the model card, with a table of `results` if there
    are any.
    """
    count = sum(tensor.numel() for tensor in state.values())
    card = artifact.model_card("PEA adapter", CARD, config, count=count, results=results)
    return artifact.save_artifact(folder, state=state, config=config, card=card)


def load_adapter(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Reads an exported adapter, frozen, and its config.

    Raises:
        FileNotFoundError, ValueError: the folder holds no adapter, a pickle, another method's
            adapter, or keys that do not match.
    """
    return artifact.load_adapter(folder, "pea", build_adapter)


def start_adapter(settings: TrainSettings, config: dict[str, Any]) -> nn.Module:
    """The adapter that a run starts from: that of `init_from`, or a new one by its seed.

    Raises:
        FileNotFoundError, ValueError: `init_from` is no adapter of this base, encoder and shape.
    """
    torch.manual_seed(settings.seed)
    adapter = build_adapter(config)
    if settings.init_from is not None:
        artifact.load_start(adapter, settings.init_from, config)
    return adapter


def initial_adapter(config: dict[str, Any]) -> nn.Module:
    """The adapter as a training by the config's `seed` starts it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return build_adapter(config)
