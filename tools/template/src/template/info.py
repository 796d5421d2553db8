"""`template info`: what a run would train, from shapes alone; no weights are read, and no
network is needed for a base and an encoder on disk.
"""

from typing import Any

from crosslingual.cli.verbs import run_verb
from template.config import TrainSettings


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """What the adapter's config.json says: its shape, its base and its encoder."""
    from crosslingual.frozen.base import Base
    from crosslingual.frozen.encoders import encoder_shape

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
        "base": settings.pretrained_model_name_or_path,
        "base_revision": settings.revision,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
    }


def info(settings: TrainSettings) -> dict[str, int]:
    """Trainable and total parameters and the memory they take, printed and returned."""
    import torch

    from crosslingual.frozen.base import Base
    from crosslingual.frozen.encoders import encoder_on_meta
    from crosslingual.frozen.memory import Estimate, count, print_info
    from template.method import build_adapter

    config = adapter_config(settings)
    with torch.device("meta"):
        found = Estimate(*count(build_adapter(config)), 0, False, False)
    counts = Base.open(config["base"], config["base_revision"]).count_parameters()
    encoder, revision = config["text_encoder"], config["text_encoder_revision"]
    frozen = {**counts, f"encoder {encoder}": encoder_on_meta(encoder, revision)}
    title = f"{config['base']}, width {config['width']}; training holds the adapter alone"
    return print_info(title, found, frozen)


def main(argv: list[str] | None = None) -> int:
    """Command line of `template info`."""
    return run_verb("template info", TrainSettings, info, argv)
