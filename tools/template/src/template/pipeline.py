"""Puts an exported adapter into a pipeline, which then reads the adapter's languages."""

from pathlib import Path
from typing import Any

from crosslingual.adapter.pipeline import attach_adapter, load_adapted
from template.artifact import load_adapter


def attach(pipe: Any, adapter: str | Path) -> Any:
    """Makes any diffusers pipeline on the adapter's base read the adapter's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: any pipeline with a
            `text_encoder`.
        adapter: an exported folder.

    Returns:
        The pipeline.

    Raises:
        ValueError: the adapter's cross-attention width or pooled vector does not match the UNet's.
    """
    return attach_adapter(pipe, *load_adapter(adapter))


def load_pipeline(path: str, base: str | None = None) -> Any:
    """Loads the adapter's base (or another one of its family) with the adapter attached."""
    return load_adapted(*load_adapter(path), base)
