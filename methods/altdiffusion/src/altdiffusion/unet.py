"""The UNet of a stage: loads it, marks its trainable parameters, and puts trained tensors back.

A stage continues from the export of the previous one. LoRA is peft's, on keys and values of
cross-attention; an export holds it merged, and also as a separate file that diffusers loads.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altdiffusion.method import what_trains
from altdiffusion.settings import TrainSettings
from altdiffusion.text.encoder import student_config
from crosslingual.frozen.base import Base

LORA_TARGETS = ["attn2.to_k", "attn2.to_v"]


def load_stage_unet(settings: TrainSettings) -> nn.Module:
    """Loads the UNet that a stage starts from; only its trainable parameters require gradients.

    Raises:
        FileNotFoundError: there is no such folder or hub entry.
        ValueError: keys do not match, the base is of another kind, or the width is not the text
            encoder's.
    """
    base = open_base(settings)
    check_width(settings, base)
    if settings.unet is not None and not Path(settings.unet).is_dir():
        raise FileNotFoundError(
            f"no folder {settings.unet}: give --unet the pipeline that the previous stage wrote"
        )
    return set_trainable(base.load_model(settings.unet), settings)


def open_base(settings: TrainSettings) -> Base:
    """Opens the base of a run.

    Raises:
        FileNotFoundError: there is no such base.
        ValueError: its denoiser takes more than the states of one text encoder.
    """
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    if base.text.pooled_width or base.text.takes_mask:
        more = "with a pooled vector" if base.text.pooled_width else "under a mask"
        raise ValueError(
            f"{base.id} takes text states {more} (family {base.family.name}), which AltDiffusion "
            "does not train: choose a Stable Diffusion 1.x or 2.x"
        )
    return base


def check_width(settings: TrainSettings, base: Base) -> None:
    """Rejects a text encoder whose states the UNet cannot take.

    Raises:
        ValueError: with both widths.
    """
    width = int(student_config(settings.text_encoder, settings.text_encoder_revision).project_dim)
    if width != base.text.width:
        raise ValueError(
            f"{settings.text_encoder} gives states of width {width}, and this base's UNet takes "
            f"width {base.text.width}: train the student with a teacher of that width (SD 1.x 768, "
            "SD 2.x 1024)"
        )


def set_trainable(unet: nn.Module, settings: TrainSettings) -> nn.Module:
    """Switches gradients on for the stage's trainable parameters, and off for all others.

    Raises:
        ValueError: LoRA is set in another stage than concept alignment, or with `all_attn2`.
    """
    unet.requires_grad_(False)
    if not settings.lora_rank:
        trains = what_trains(settings.stage, settings.all_attn2)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(trains(name))
        return unet
    if settings.stage != "concept_alignment" or settings.all_attn2:
        raise ValueError(
            "lora_rank is for concept alignment on keys and values: set it to 0, or leave out "
            "all_attn2"
        )
    from peft import LoraConfig

    rank = settings.lora_rank
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS, init_lora_weights=True)
    )
    return unet


def trained_unet(settings: TrainSettings, state: dict[str, Tensor]) -> tuple[nn.Module, Any]:
    """Returns the stage's UNet with the trained tensors, frozen, and LoRA's own tensors or None.

    Raises:
        ValueError: the tensors are not those that the stage trains.
    """
    unet = load_stage_unet(settings)
    wanted = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    if odd := sorted(wanted.keys() ^ state.keys()):
        raise ValueError(f"these tensors are not what the stage trains: {', '.join(odd[:4])}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])
    lora = None
    if settings.lora_rank:
        from peft.utils import get_peft_model_state_dict

        lora = {k: v.clone() for k, v in get_peft_model_state_dict(unet).items()}
        unet.fuse_lora()
        unet.unload_lora()
    return unet.eval().requires_grad_(False), lora
