"""What a run would train, from shapes alone: no weights are read, and no network is needed for
known configs.
"""

import sys
from typing import Any

from crosslingual.cli.verbs import run_verb
from mulan.config import TrainSettings


def check_alignment(settings: TrainSettings) -> None:
    """Refuses an alignment that the base or the features cannot give.

    Raises:
        ValueError: with the setting to change.
    """
    from crosslingual.frozen.base import denoiser_part

    base = settings.pretrained_model_name_or_path
    is_transformer = denoiser_part(base, settings.revision) == "transformer"
    if is_transformer and (settings.alignment != "image" or settings.english_states):
        raise ValueError(
            "PixArt's adapter is trained through pictures alone: use --alignment image "
            "--english_states false"
        )
    if settings.alignment != "image" and not settings.english_states:
        raise ValueError(
            f"alignment {settings.alignment} reads the English encoder's states: use "
            "--english_states true"
        )


def base_shape(base: str, revision: str | None) -> dict[str, Any]:
    """The part of an adapter's shape that its base gives: `family`, `width`, `pooled_width`,
    `split_widths`.

    Raises:
        ValueError: a transformer other than PixArt's.
    """
    from crosslingual.frozen.base import denoiser_part, load_config
    from crosslingual.frozen.shapes import pooled_width

    part = denoiser_part(base, revision)
    denoiser = load_config(base, part, revision)
    if part == "transformer":
        if denoiser["_class_name"] != "PixArtTransformer2DModel":
            raise ValueError(
                f"{base} denoises with a {denoiser['_class_name']}; of transformers, MuLan knows "
                "PixArt's: choose a PixArt, SD 1.x, SD 2.x or SDXL base"
            )
        width = denoiser["num_attention_heads"] * denoiser["attention_head_dim"]
        return {"family": "pixart", "width": width, "pooled_width": None, "split_widths": None}
    pooled = pooled_width(denoiser)
    width = int(denoiser["cross_attention_dim"])
    if pooled is None:
        return {"family": "sd", "width": width, "pooled_width": None, "split_widths": None}
    # The published order: the second encoder's width first.
    parts = ("text_encoder_2", "text_encoder")
    split = [int(load_config(base, name, revision)["hidden_size"]) for name in parts]
    return {"family": "sdxl", "width": width, "pooled_width": pooled, "split_widths": split}


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """What the adapter's config.json says: its shape, its base and its encoder.

    Raises:
        ValueError: settings that do not go together.
    """
    from crosslingual.frozen.base import load_config
    from crosslingual.frozen.encoders import encoder_shape
    from crosslingual.frozen.weights import locate

    check_alignment(settings)
    base, revision = settings.pretrained_model_name_or_path, settings.revision
    shape = base_shape(base, revision)
    encoder_width, longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)
    is_sdxl = shape["family"] == "sdxl"
    add_embedding = None
    if is_sdxl and settings.replace_add_embedding:
        unet = load_config(base, "unet", revision)
        embedded = 4 * unet["block_out_channels"][0]  # as wide as the UNet's time embedding
        add_embedding = [unet["projection_class_embeddings_input_dim"], embedded]
    if settings.null_policy == "zeros" and not is_sdxl:
        raise ValueError("null_policy zeros is SDXL's: stock pipelines of other bases encode ''")
    widths = [*(shape["split_widths"] or [shape["width"]]), shape["pooled_width"] or 0]
    if any(width % settings.num_heads for width in widths) and shape["family"] != "pixart":
        raise ValueError(f"num_heads {settings.num_heads} does not divide the base's {widths}")
    return {
        "method": "mulan",
        "variant": settings.variant,
        **shape,
        "encoder_width": encoder_width,
        "num_queries": settings.num_queries,
        "num_heads": settings.num_heads,
        "num_layers": settings.num_layers,
        "pool": settings.pool,
        "pool_input_width": encoder_width,
        "add_embedding": add_embedding,
        "max_length": settings.max_length or longest,
        "null_policy": settings.null_policy,
        "base": locate(base),
        "base_revision": revision,
        "text_encoder": locate(settings.text_encoder),
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": [*_languages_before(settings), *settings.languages],
        "guidance_scale": settings.guidance_scale,
    }


def _languages_before(settings: TrainSettings) -> list[str]:
    """The languages of a seed adapter that is gone on with, but for those that train."""
    if settings.variant != "seed" or settings.init_adapter is None:
        return []
    from crosslingual.adapter.artifact import load_artifact_config

    before = load_artifact_config(settings.init_adapter)["languages"]
    return [language for language in before if language not in settings.languages]


def info(settings: TrainSettings) -> dict[str, int]:
    """Trainable and total parameters and the memory they take, printed and returned."""
    from crosslingual.frozen.shapes import count_frozen, count_parameters, print_parameters
    from mulan.method import build_adapter

    config = adapter_config(settings)
    frozen = count_frozen(
        config["base"],
        config["base_revision"],
        config["text_encoder"],
        config["text_encoder_revision"],
    )
    title = (
        f"{config['base']}, variant {settings.variant}, width {config['width']}; training from "
        "features holds the adapter and the denoiser alone"
    )
    return print_parameters(title, count_parameters(config, build_adapter), frozen)


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan info`."""
    return run_verb("mulan info", TrainSettings, info, argv)


if __name__ == "__main__":
    sys.exit(main())
