"""What a run would train, from shapes alone: no weights are read, and no network is needed for
known configs.
"""

import sys
from typing import Any

from crosslingual.cli.verbs import run_verb
from mclip.config import TrainSettings


def projector_shape(settings: TrainSettings) -> dict[str, Any]:
    """What `TriKD` is built from: the widths of both frozen sides and the X-projector's layers."""
    from crosslingual.frozen.clip import clip_shape
    from crosslingual.frozen.encoders import encoder_shape

    return {
        "clip_width": clip_shape(settings.clip, settings.clip_revision)[0],
        "width": encoder_shape(settings.text_encoder, settings.text_encoder_revision)[0],
        "num_layers": settings.num_layers,
        "num_heads": settings.num_heads,
        "ffn_width": settings.ffn_width,
        "dropout": settings.dropout,
        "attention_dropout": settings.attention_dropout,
    }


def model_config(settings: TrainSettings) -> dict[str, Any]:
    """What the model's config.json says: the projectors' shape, and the frozen parts that they were
    trained on, with the hashes of weights that no revision names.
    """
    from crosslingual.frozen.encoders import encoder_shape
    from crosslingual.frozen.weights import locate, weights_hash

    longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)[1]
    return {
        "method": "mclip",
        **projector_shape(settings),
        "max_length": settings.max_length or longest,
        "resolution": settings.resolution,
        "clip": locate(settings.clip),
        "clip_revision": settings.clip_revision,
        "clip_weights": weights_hash(settings.clip),
        "text_encoder": locate(settings.text_encoder),
        "text_encoder_revision": settings.text_encoder_revision,
        "text_encoder_weights": weights_hash(settings.text_encoder),
        "languages": settings.languages,
    }


def info(settings: TrainSettings) -> dict[str, int]:
    """Trainable and total parameters and the memory they take, printed and returned."""
    from crosslingual.frozen.clip import clip_on_meta
    from crosslingual.frozen.encoders import encoder_on_meta
    from crosslingual.frozen.shapes import count_parameters, print_parameters
    from mclip.method import TriKD

    shape = projector_shape(settings)
    frozen = {
        f"CLIP {settings.clip}": clip_on_meta(settings.clip, settings.clip_revision),
        f"encoder {settings.text_encoder}": encoder_on_meta(
            settings.text_encoder, settings.text_encoder_revision
        ),
    }
    title = (
        f"{settings.clip} and {settings.text_encoder} meet at width {shape['width']}; training "
        "from features holds the projectors alone"
    )
    return print_parameters(title, count_parameters(shape, TriKD), frozen)


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip info`."""
    return run_verb("mclip info", TrainSettings, info, argv)


if __name__ == "__main__":
    sys.exit(main())
