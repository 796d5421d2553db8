"""What a run would train, from shapes alone: no weights are read, and no network is needed for
known configs.
"""

import sys
from typing import Any

from crosslingual.cli.verbs import run_verb
from pea.config import TrainSettings


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """What the adapter's config.json says: its shape, its base and its encoder."""
    from crosslingual.frozen.base import load_config
    from crosslingual.frozen.encoders import encoder_shape
    from crosslingual.frozen.shapes import pooled_width

    unet = load_config(settings.pretrained_model_name_or_path, "unet", settings.revision)
    encoder_width, longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)
    return {
        "method": "pea",
        "variant": settings.variant,
        "encoder_width": encoder_width,
        "width": int(unet["cross_attention_dim"]),
        "pooled_width": pooled_width(unet),
        "hidden_width": settings.hidden_width,
        "rank": settings.rank,
        "max_length": settings.max_length or longest,
        "null_policy": "adapter",
        "base": settings.pretrained_model_name_or_path,
        "base_revision": settings.revision,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
    }


def info(settings: TrainSettings) -> dict[str, int]:
    """Trainable and total parameters and the memory they take, printed and returned."""
    from crosslingual.frozen.shapes import count_frozen, count_parameters, print_parameters
    from pea.method import build_adapter

    config = adapter_config(settings)
    frozen = count_frozen(
        config["base"],
        config["base_revision"],
        config["text_encoder"],
        config["text_encoder_revision"],
    )
    title = (
        f"{config['base']}, variant {settings.variant}, width {config['width']}; training from "
        "features holds the adapter and the UNet alone"
    )
    return print_parameters(title, count_parameters(config, build_adapter), frozen)


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea info`."""
    return run_verb("pea info", TrainSettings, info, argv)


if __name__ == "__main__":
    sys.exit(main())
