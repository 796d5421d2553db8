"""The UNet of a stage: where it comes from, what of it trains, how what was trained is put back.

A stage goes on from the former stage's export. LoRA is peft's, on keys and values of
cross-attention; an export holds it merged, and beside it as the file that diffusers loads.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altdiffusion.config import TrainSettings
from altdiffusion.method import what_trains
from altdiffusion.text_encoder import student_config
from crosslingual.frozen.base import load_config, load_unet
from crosslingual.frozen.weights import load_frozen

LORA_TARGETS = ["attn2.to_k", "attn2.to_v"]


def load_stage_unet(settings: TrainSettings) -> nn.Module:
    """The UNet that a stage starts from, frozen.

    Raises:
        FileNotFoundError: there is no such folder or hub entry.
        ValueError: keys that do not fit, or a width that is not the text encoder's.
    """
    if settings.unet is None:
        unet = load_unet(settings.pretrained_model_name_or_path, settings.revision)
    else:
        from diffusers import UNet2DConditionModel

        folder = Path(settings.unet)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}: give the pipeline that the former stage wrote to --unet"
            )
        is_pipeline = (folder / "model_index.json").is_file()
        place = str(folder / "unet" if is_pipeline else folder)
        unet = load_frozen(UNet2DConditionModel, place)
    check_width(settings, unet.config)
    return unet


def unet_config(settings: TrainSettings) -> dict[str, Any]:
    """The base's UNet config, without its weights; every stage's UNet has this shape."""
    return load_config(settings.pretrained_model_name_or_path, "unet", settings.revision)


def check_width(settings: TrainSettings, config: Any) -> None:
    """Refuses a text encoder whose states the UNet cannot take.

    Raises:
        ValueError: with both widths.
    """
    width = int(student_config(settings.text_encoder, settings.text_encoder_revision).project_dim)
    wanted = config["cross_attention_dim"]
    if width != wanted or config.get("addition_embed_type") is not None:
        raise ValueError(
            f"{settings.text_encoder} gives states of width {width}, and this base's UNet takes "
            f"width {wanted}"
            + (" with a pooled vector" if config.get("addition_embed_type") else "")
            + ": train the student after a teacher of that width (SD 1.x 768, SD 2.x 1024)"
        )


def set_trainable(unet: nn.Module, settings: TrainSettings) -> nn.Module:
    """Switches gradients on for what the stage trains, and for nothing else.

    Raises:
        ValueError: LoRA in another stage than concept alignment.
    """
    unet.requires_grad_(False)
    if settings.lora_rank:
        add_lora(unet, settings)
        return unet
    trains = what_trains(settings.stage, settings.all_attn2)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(trains(name))
    return unet


def add_lora(unet: nn.Module, settings: TrainSettings) -> None:
    """Puts LoRA layers on keys and values of cross-attention; they alone train.

    Raises:
        ValueError: another stage than concept alignment, or all of cross-attention.
    """
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


def trained_unet(settings: TrainSettings, state: dict[str, Tensor]) -> tuple[nn.Module, Any]:
    """The stage's UNet with what was trained put in, frozen; and of LoRA its own tensors, else
    None.

    Raises:
        ValueError: the tensors are not those that the stage trains.
    """
    unet = set_trainable(load_stage_unet(settings), settings)
    wanted = {name for name, p in unet.named_parameters() if p.requires_grad}
    if wanted != set(state):
        odd = sorted(wanted ^ set(state))
        raise ValueError(f"what was trained is not what the stage trains: {', '.join(odd[:4])}")
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name in state:
                parameter.copy_(state[name])
    lora = None
    if settings.lora_rank:
        from peft.utils import get_peft_model_state_dict

        lora = {k: v.clone() for k, v in get_peft_model_state_dict(unet).items()}
        unet.fuse_lora()
        unet.unload_lora()
    return unet.eval().requires_grad_(False), lora
