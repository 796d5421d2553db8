"""Puts an exported encoder into a pipeline, which then reads the encoder's languages."""

from pathlib import Path
from typing import Any

from crosslingual.adapter.pipeline import set_text_encoder
from crosslingual.frozen.base import Base
from iap.artifact import load_encoder


def attach(pipe: Any, folder: str | Path) -> Any:
    """Makes any diffusers pipeline on the encoder's base read the encoder's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: any pipeline with a
            `text_encoder`.
        folder: folder of an exported encoder.

    Returns:
        The pipeline.

    Raises:
        ValueError: the encoder's width is not the UNet's, or the base needs a pooled vector.
    """
    model, tokenizer, config = load_encoder(folder)
    return set_text_encoder(pipe, model, tokenizer, width=config["width"])


def load_pipeline(path: str, base: str | None = None) -> Any:
    """Loads the encoder's base (or another one of its family) with the encoder in place."""
    model, tokenizer, config = load_encoder(path)
    opened = Base.open(base or config["base"], None if base else config["base_revision"])
    pipe = opened.load_pipeline(with_text=False)
    return set_text_encoder(pipe, model, tokenizer, width=config["width"])
