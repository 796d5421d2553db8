"""A stage's result: the folder of a `StableDiffusionPipeline`, which stock diffusers loads and
runs without this package.

Besides diffusers' own files it has `altdiffusion.json` (the settings that made it), a model card
and, after LoRA, `lora/pytorch_lora_weights.safetensors`, already merged into the UNet.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altdiffusion.data import trained_encoder
from altdiffusion.settings import TrainSettings
from altdiffusion.text.encoder import tell_diffusers
from altdiffusion.unet import open_base, trained_unet
from crosslingual.adapter.artifact import load_artifact_config, model_card, save_artifact
from crosslingual.frozen.weights import quiet_libraries

CONFIG, KIND = "altdiffusion.json", "pipeline"
CARD = """\
A Stable Diffusion that reads {count} languages: `{base}` with a multilingual student of CLIP's text
encoder and a UNet trained to read it (AltDiffusion, arXiv 2308.09991; last stage: {stage}).

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("this/folder")
pipe("...", guidance_scale={guidance_scale}).images[0]
```
"""


def pipeline_config(settings: TrainSettings) -> dict[str, Any]:
    """Builds the content of `altdiffusion.json`."""
    return {
        "method": "altdiffusion",
        "stage": settings.stage,
        "base": settings.pretrained_model_name_or_path,
        "base_revision": settings.revision,
        "languages": settings.languages,
        "resolution": settings.resolution,
        "guidance_scale": settings.guidance_scale,
        "all_attn2": settings.all_attn2,
        "lora_rank": settings.lora_rank,
    }


def build_pipeline(settings: TrainSettings, unet: nn.Module) -> Any:
    """Builds the base's pipeline with a UNet and the settings' text encoder."""
    base = open_base(settings)
    encoder = trained_encoder(settings)
    tell_diffusers(encoder)
    return base.load_pipeline(
        denoiser=unet, text_encoder=encoder.model, tokenizer=encoder.tokenizer
    )


def save_trained(
    state: dict[str, Tensor],
    settings: TrainSettings,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes the pipeline of a stage, complete or not at all.

    Args:
        state: the trained tensors, by the UNet's names.
        settings: settings of the run.
        folder: replaced if it already holds a model.
        dtype: precision of the written weights.
    """
    unet, lora = trained_unet(settings, state)
    pipe = build_pipeline(settings, unet)
    with quiet_libraries():  # diffusers warns of casting parts that keep nothing in fp32
        pipe.to(dtype)
    return save_pipeline(pipe, pipeline_config(settings), folder, lora)


def save_pipeline(pipe: Any, config: dict[str, Any], folder: str | Path, lora: Any = None) -> Path:
    """Writes a pipeline with its `altdiffusion.json`, complete or not at all; and LoRA's tensors if
    there are any.
    """
    card = model_card("AltDiffusion", CARD, config, count=len(config["languages"]))

    def fill(partial: Path) -> None:
        with quiet_libraries():
            pipe.save_pretrained(partial, safe_serialization=True)
            if lora is not None:
                pipe.save_lora_weights(partial / "lora", unet_lora_layers=lora)

    return save_artifact(
        folder,
        state=None,
        config=config,
        card=card,
        add=fill,
        config_name=CONFIG,
        kind=KIND,
    )


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads an exported pipeline's `altdiffusion.json`.

    Raises:
        FileNotFoundError: the folder holds no exported pipeline.
        ValueError: the pipeline has another version.
    """
    return load_artifact_config(folder, "altdiffusion", CONFIG)
