"""Writes an adapter's folder and reads it back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import artifact
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import encoder_shape
from template.method import build_adapter
from template.settings import TrainSettings

CARD = """\
A text-space adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the
frozen UNet of `{base}`, trained on parallel captions until its states equal those of the English
encoder.

```python
{import_base}
import template

pipe = {load_base}
template.attach(pipe, "this/folder")
pipe("...").images[0]
```
"""


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """Builds the adapter's config.json: its shape, its base and its encoder."""
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    encoder_width, longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)
    return {
        "method": "template",
        "encoder_width": encoder_width,
        "width": base.text.width,
        "pooled_width": base.text.pooled_width,
        "hidden_width": settings.hidden_width,
        "max_length": settings.max_length or longest,
        "null_policy": "adapter",
        "base": base.id,
        "base_revision": base.revision,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
    }


def save_adapter(
    state: dict[str, Tensor], config: dict[str, Any], folder: str | Path, results: list[dict] = ()
) -> Path:
    """Writes config.json, model.safetensors and the model card, with a table of `results` if there
    are any.
    """
    count = sum(tensor.numel() for tensor in state.values())
    card = artifact.model_card("Text-space adapter", CARD, config, count=count, results=results)
    return artifact.save_artifact(folder, state=state, config=config, card=card)


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


def load_adapter(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Reads an exported adapter, frozen, and its config.

    Raises:
        FileNotFoundError, ValueError: the folder holds no adapter, a pickle, another method's
            adapter, or keys that do not match.
    """
    return artifact.load_adapter(folder, "template", build_adapter)
