"""How large models are, from their configs alone: no weights are read, and of a base or encoder on
disk no network is needed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from crosslingual.frozen.base import denoiser_part, load_config
from crosslingual.frozen.encoders import encoder_on_meta


def vae_scaling_factor(base: str, revision: str | None = None) -> float:
    """The factor that brings a base's latents to unit variance."""
    return float(load_config(base, "vae", revision)["scaling_factor"])


def pooled_width(unet: dict[str, Any]) -> int | None:
    """Width of the pooled text vector that a UNet takes, None where it takes none.

    SDXL's addition embedding reads the pooled vector and six sinusoidal embeddings of sizes and
    crops.

    Args:
        unet: the UNet's config.
    """
    if unet.get("addition_embed_type") != "text_time":
        return None
    return int(unet["projection_class_embeddings_input_dim"]) - 6 * int(
        unet["addition_time_embed_dim"]
    )


def count_parameters(shape: dict[str, Any], make: Callable[[dict[str, Any]], nn.Module]) -> int:
    """Parameters of a module built from its config on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(shape).parameters())


def count_frozen(
    base: str, revision: str | None, encoder: str, encoder_revision: str | None
) -> dict[str, int]:
    """Parameters of a base's UNet (or transformer) and VAE and of the multilingual encoder, by a
    name for each.
    """
    from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel

    denoisers = {"unet": UNet2DConditionModel, "transformer": PixArtTransformer2DModel}
    part = denoiser_part(base, revision)
    denoiser, vae = (load_config(base, name, revision) for name in (part, "vae"))
    return {
        "UNet" if part == "unet" else part: count_parameters(denoiser, denoisers[part].from_config),
        "VAE": count_parameters(vae, AutoencoderKL.from_config),
        f"encoder {encoder}": encoder_on_meta(encoder, encoder_revision),
    }


def print_parameters(title: str, trainable: int, frozen: dict[str, int]) -> dict[str, int]:
    """Prints parameters and the memory they take as a table.

    Memory of what trains: fp32 weights, gradients and AdamW's two moments, 16 bytes a parameter
    (ZeRO 1 shares the moments among the ranks). Frozen parts: 4 bytes a parameter in fp32, 2 in
    bf16. Activations are not counted.

    Args:
        title: the line above the table.
        trainable: parameters that train.
        frozen: parameters of the frozen parts, by name.

    Returns:
        `trainable`, `total` and the frozen parts, in parameters.
    """
    rows = [
        ("adapter (trains)", trainable, 16 * trainable),
        *((name, n, 4 * n) for name, n in frozen.items()),
    ]
    total = trainable + sum(frozen.values())
    print(title)
    print(f"{'part':<40} {'parameters':>14} {'memory, fp32':>14}")
    for name, number, size in rows:
        print(f"{name:<40} {number:>14,} {size / 2**20:>10,.1f} MiB")
    print(f"{'total':<40} {total:>14,} {sum(size for *_, size in rows) / 2**20:>10,.1f} MiB")
    print(f"trainable share {trainable / total:.2%}")
    return {"trainable": trainable, "total": total, **frozen}
