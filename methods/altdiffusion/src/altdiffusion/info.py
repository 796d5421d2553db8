"""What a run would train, from shapes alone: no weights are read, and no network is needed for
known bases.
"""

import sys
from typing import Any

from altdiffusion.config import TrainSettings
from crosslingual.cli.verbs import run_verb


def unet_on_meta(settings: TrainSettings) -> Any:
    """The UNet of a stage, with gradients switched on for what trains, without any memory."""
    import torch
    from diffusers import UNet2DConditionModel

    from altdiffusion.unet import set_trainable, unet_config

    with torch.device("meta"):
        return set_trainable(UNet2DConditionModel.from_config(unet_config(settings)), settings)


def count(module: Any) -> tuple[int, int]:
    """A module's parameters that train, and all of them."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def info(settings: TrainSettings) -> dict[str, int]:
    """Trainable and frozen parameters of a stage, printed and returned."""
    from pathlib import Path

    from diffusers import AutoencoderKL

    from altdiffusion.text_encoder import student_places
    from crosslingual.frozen.base import load_config
    from crosslingual.frozen.encoders import encoder_on_meta
    from crosslingual.frozen.shapes import count_parameters

    base = settings.pretrained_model_name_or_path
    trainable, total = count(unet_on_meta(settings))
    vae = load_config(base, "vae", settings.revision)
    rows = {
        "UNet, trains": trainable,
        "UNet, frozen": total - trainable,
        "VAE (features alone)": count_parameters(vae, AutoencoderKL.from_config),
    }
    place = student_places(settings.text_encoder)[0]
    if Path(place).is_dir():
        rows["text encoder (features alone)"] = encoder_on_meta(place)
    print(f"{base}, {settings.stage}")
    for name, number in rows.items():
        print(f"{name:<32} {number:>14,}")
    if not Path(place).is_dir():
        print(f"text encoder {settings.text_encoder}: not there yet; run `altdiffusion train-text`")
    print(f"of the UNet {trainable / total:.2%} train; for memory see `altdiffusion memory`")
    return {"trainable": trainable, "unet": total, **rows}


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion info`."""
    return run_verb("altdiffusion info", TrainSettings, info, argv)


if __name__ == "__main__":
    sys.exit(main())
