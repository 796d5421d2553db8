"""From an exported adapter to pictures: `load_pipeline`, `attach`, and `template generate`."""

from pathlib import Path
from typing import Any

from crosslingual.adapter.pipeline import GenerateSettings, write_pictures
from crosslingual.adapter.text_encoder import attach as attach_dropin
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.frozen.encoders import load_multilingual_encoder
from template.export import load_adapter


def attach(pipe: Any, adapter: str | Path) -> Any:
    """Makes any diffusers pipeline on the adapter's base read the adapter's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: whatever takes
            `text_encoder`.
        adapter: an exported folder.

    Returns:
        The pipeline.

    Raises:
        ValueError: the adapter's cross-attention width or pooled vector is not the UNet's.
    """
    module, config = load_adapter(adapter)
    encoder = load_multilingual_encoder(
        config["text_encoder"], config["text_encoder_revision"], config["max_length"]
    )
    return attach_dropin(pipe, encoder, module, config)


def load_pipeline(path: str, base: str | None = None) -> Any:
    """The adapter's base (or another of its family) with the adapter attached."""
    _, config = load_adapter(path)
    pipe = load_base(base or config["base"], None if base else config["base_revision"])
    return attach(pipe, path)


def generate(settings: GenerateSettings) -> Path:
    """Writes pictures, a folder a prompt; see `crosslingual.adapter.pipeline.write_pictures`."""
    return write_pictures(settings, load_pipeline)


def main(argv: list[str] | None = None) -> int:
    """Command line of `template generate`."""
    return run_verb("template generate", GenerateSettings, generate, argv)
