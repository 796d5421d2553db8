"""What a run would train, from shapes alone: no weights are read, and no network is needed for
known configs.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from crosslingual.settings import parse_settings, run_command
from pea.config import TrainSettings


def base_shapes(settings: TrainSettings) -> dict[str, Any]:
    """The base's UNet config and VAE config, read without weights."""
    from crosslingual.encoders import load_config

    base, revision = settings.pretrained_model_name_or_path, settings.revision
    return {part: load_config(base, part, revision) for part in ("unet", "vae")}


def vae_scaling_factor(settings: TrainSettings) -> float:
    """The factor that brings latents to unit variance."""
    return float(base_shapes(settings)["vae"]["scaling_factor"])


def pooled_width(unet: dict[str, Any]) -> int | None:
    """Width of the pooled text vector that a UNet takes, None where it takes none.

    SDXL's addition embedding reads the pooled vector and six sinusoidal embeddings of sizes and
    crops.
    """
    if unet.get("addition_embed_type") != "text_time":
        return None
    return int(unet["projection_class_embeddings_input_dim"]) - 6 * int(
        unet["addition_time_embed_dim"]
    )


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """What the adapter's config.json says: its shape, its base and its encoder."""
    from crosslingual.encoders import encoder_shape

    unet = base_shapes(settings)["unet"]
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


def count_parameters(shape: dict[str, Any], make: Callable[[dict[str, Any]], nn.Module]) -> int:
    """Parameters of a module built from its config on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(shape).parameters())


def info(settings: TrainSettings) -> dict[str, Any]:
    """Trainable and total parameters and the memory they take, printed and returned.

    Memory of what trains: fp32 weights, gradients and AdamW's two moments, 16 bytes a parameter
    (ZeRO 1 shares the moments among the ranks). Frozen parts: 4 bytes a parameter in fp32, 2 in
    bf16. Activations are not counted.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from crosslingual.encoders import encoder_on_meta
    from pea.method import build_adapter

    shapes = base_shapes(settings)
    config = adapter_config(settings)
    trainable = count_parameters(config, build_adapter)
    frozen = {
        "UNet": count_parameters(shapes["unet"], UNet2DConditionModel.from_config),
        "VAE": count_parameters(shapes["vae"], AutoencoderKL.from_config),
        f"encoder {settings.text_encoder}": encoder_on_meta(
            settings.text_encoder, settings.text_encoder_revision
        ),
    }
    rows = [
        ("adapter (trains)", trainable, 16 * trainable),
        *((name, n, 4 * n) for name, n in frozen.items()),
    ]
    total = trainable + sum(frozen.values())
    print(f"{config['base']}, variant {settings.variant}, width {config['width']}")
    print(f"{'part':<40} {'parameters':>14} {'memory, fp32':>14}")
    for name, number, size in rows:
        print(f"{name:<40} {number:>14,} {size / 2**20:>10,.1f} MiB")
    print(f"{'total':<40} {total:>14,} {sum(size for *_, size in rows) / 2**20:>10,.1f} MiB")
    print(
        f"trainable share {trainable / total:.2%}; from features, adapter and UNet alone are held"
    )
    return {"trainable": trainable, "total": total, **frozen}


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea info`."""
    words = sys.argv[1:] if argv is None else argv

    def command() -> None:
        info(parse_settings(TrainSettings, words, prog="pea info"))

    return run_command(command)
