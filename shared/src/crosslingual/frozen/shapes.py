"""The shapes of well-known models by their hub id, so that `NAME info` counts them without network,
and `tools/random_base.py` builds them without weights. Values that are the libraries' defaults are
left out.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name("published_shapes.json")
    return json.loads(path.read_text(encoding="utf-8"))


def published_shape(name: str, part: str) -> dict[str, Any] | None:
    """The config of a part of a well-known model, or None where none is written down.

    Args:
        name: the hub id.
        part: `unet`, `vae`, `scheduler`, `text_encoder` ... of a base; `encoder` and `tokenizer` of
            a multilingual text encoder; `clip`.
    """
    config = _shapes().get(name, {}).get(part)
    return None if config is None else dict(config)


# ---- what follows serves the methods until they have moved to Base and frozen/memory.py ----


def vae_scaling_factor(base: str, revision: str | None = None) -> float:
    """`Base.latents.scale`."""
    from crosslingual.frozen.base import Base

    return Base.open(base, revision).latents.scale


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


def count_parameters(shape: Any, make: Any) -> int:
    """Parameters of a module built on the meta device."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(shape).parameters())


def count_frozen(base: str, revision: Any, encoder: str, encoder_revision: Any) -> dict[str, int]:
    """By name."""
    from crosslingual.frozen.base import Base
    from crosslingual.frozen.encoders import encoder_on_meta

    counts = Base.open(base, revision).count_parameters()
    encoders = {f"encoder {encoder}": encoder_on_meta(encoder, encoder_revision)}
    return {"UNet": counts["denoiser"], "VAE": counts["vae"], **encoders}


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
