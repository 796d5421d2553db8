"""From an exported encoder to pictures: `load_pipeline`, `attach`, and `iap generate`."""

import sys
from pathlib import Path
from typing import Any

from crosslingual.adapter.pipeline import GenerateSettings, write_pictures
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from iap.export import load_encoder, set_encoder


def attach(pipe: Any, folder: str | Path) -> Any:
    """Makes any diffusers pipeline on the encoder's base read the encoder's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: whatever takes
            `text_encoder`.
        folder: an exported one.

    Returns:
        The pipeline.

    Raises:
        ValueError: the encoder's width is not the UNet's, or the base takes a pooled vector.
    """
    model, tokenizer, _ = load_encoder(folder)
    return set_encoder(pipe, model, tokenizer)


def load_pipeline(path: str, base: str | None = None) -> Any:
    """The encoder's base (or another of its family) with the encoder in place."""
    model, tokenizer, config = load_encoder(path)
    pipe = load_base(base or config["base"], None if base else config["base_revision"])
    return set_encoder(pipe, model, tokenizer)


def generate(settings: GenerateSettings) -> Path:
    """Writes pictures, a folder a prompt; see `crosslingual.adapter.pipeline.write_pictures`."""
    return write_pictures(settings, load_pipeline)


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap generate`."""
    return run_verb("iap generate", GenerateSettings, generate, argv)


if __name__ == "__main__":
    sys.exit(main())
