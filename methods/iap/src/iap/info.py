"""What a run would train, from shapes alone: no weights are read, and no network is needed for
known configs.
"""

import sys
from typing import Any

from crosslingual.cli.verbs import run_verb
from iap.config import TrainSettings


def encoder_config(settings: TrainSettings) -> dict[str, Any]:
    """What the exported config.json says: the encoder's shape, its base and where it started.

    Raises:
        ValueError: the base takes a pooled text vector, which AltCLIP's text model has none for.
    """
    from crosslingual.frozen.base import load_config
    from crosslingual.frozen.encoders import encoder_shape
    from crosslingual.frozen.shapes import pooled_width
    from crosslingual.frozen.weights import locate
    from iap.encoder import altclip_config

    base, encoder = settings.pretrained_model_name_or_path, settings.text_encoder
    unet = load_config(base, "unet", settings.revision)
    if pooled_width(unet) is not None:
        raise ValueError(
            f"{base} takes a pooled text vector (SDXL), which IAP does not train: choose a base of "
            "the SD 1.x or 2.x family"
        )
    width = int(unet["cross_attention_dim"])
    altclip = altclip_config(encoder, settings.text_encoder_revision, width)
    longest = encoder_shape(encoder, settings.text_encoder_revision)[1]
    return {
        "method": "iap",
        "width": width,
        "pooled_width": None,
        "altclip": altclip,
        "max_length": settings.max_length or longest,
        "null_policy": "encoder",
        "base": locate(base),
        "base_revision": settings.revision,
        "text_encoder": locate(encoder),
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": settings.target_language,
        "objective": settings.objective,
        "branch": settings.branch,
        "layers": settings.layers,
        "distance": settings.distance,
        "guidance_scale": settings.guidance_scale,
    }


def info(settings: TrainSettings) -> dict[str, int]:
    """Trainable and total parameters and the memory they take, printed and returned."""
    import torch

    from crosslingual.frozen.shapes import count_frozen, print_parameters
    from iap.encoder import add_lora, build_encoder

    config = encoder_config(settings)
    with torch.device("meta"):
        encoder = build_encoder(config["altclip"])
        if settings.train_encoder == "lora":
            add_lora(encoder, settings.lora_rank)
    count = {is_trained: 0 for is_trained in (True, False)}
    for parameter in encoder.parameters():
        count[parameter.requires_grad] += parameter.numel()
    frozen = count_frozen(
        config["base"],
        config["base_revision"],
        config["text_encoder"],
        config["text_encoder_revision"],
    )
    frozen = {name: n for name, n in frozen.items() if not name.startswith("encoder")}
    if settings.train_encoder == "lora":
        frozen["target encoder under LoRA"] = count[False]
    title = (
        f"{config['base']}, encoder from {config['text_encoder']} ({settings.train_encoder}), "
        f"width {config['width']}; training from features holds it and the UNet alone"
    )
    return print_parameters(title, count[True], frozen)


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap info`."""
    return run_verb("iap info", TrainSettings, info, argv)


if __name__ == "__main__":
    sys.exit(main())
