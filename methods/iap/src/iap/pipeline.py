"""Puts an exported encoder into a pipeline, which then reads the encoder's languages."""

from pathlib import Path
from typing import Any

from crosslingual.frozen.base import Base
from iap.artifact import load_encoder, load_head, place


def attach(pipe: Any, folder: str | Path) -> Any:
    """Makes any diffusers pipeline on the encoder's base read the encoder's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: any pipeline with a
            `text_encoder`.
        folder: folder of an exported encoder.

    Returns:
        The pipeline.

    Raises:
        ValueError: the encoder's width or pooled vector is not what the denoiser takes.
    """
    model, tokenizer, config = load_encoder(folder)
    return place(pipe, model, tokenizer, config, load_head(folder, config))


def load_pipeline(path: str, base: str | None = None) -> Any:
    """Loads the encoder's base (or another one of its family) with the encoder in place."""
    model, tokenizer, config = load_encoder(path)
    opened = Base.open(base or config["base"], None if base else config["base_revision"])
    pipe = opened.load_pipeline(with_text=False)
    return place(pipe, model, tokenizer, config, load_head(path, config))
