"""The trained encoder: XLM-R's weights under the names of AltCLIP's text model. Its head is new,
unless it starts from an AltCLIP or an earlier IAP encoder, which have one.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AltCLIPTextConfig, AltCLIPTextModel, XLMRobertaModel

from crosslingual.adapter.artifact import (
    check_alike,
    load_artifact,
    load_artifact_config,
    load_strict,
)
from crosslingual.frozen.encoders import encoder_config
from crosslingual.frozen.weights import freeze_embeddings, load_frozen
from iap.method import TargetEncoder
from iap.settings import TrainSettings

WITH_HEAD = "altclip_text_model"
SHAPE = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "max_position_embeddings hidden_act layer_norm_eps pad_token_id bos_token_id eos_token_id "
    "type_vocab_size"
).split()
TRAINED_BY = ("objective", "branch", "layers", "distance", "clip", "clip_revision")
"""Keys of an export's config in which encoders that are merged, or gone on from, may differ."""
LORA_TARGETS = ("query", "key", "value", "dense")


def altclip_config(text_encoder: str, revision: str | None, width: int) -> dict[str, Any]:
    """The config of an `AltCLIPTextModel` in the shape of an XLM-R, projecting to `width`.

    Dropout is off, because the student has to match a teacher that has none.

    Raises:
        ValueError: the encoder is of another type, or its own head has another width.
    """
    found = encoder_config(text_encoder, revision)
    if found.model_type not in ("xlm-roberta", WITH_HEAD):
        raise ValueError(
            f"{text_encoder} is a {found.model_type}: IAP starts from an XLM-R (xlm-roberta) or "
            f"from an AltCLIP text model ({WITH_HEAD})"
        )
    if found.model_type == WITH_HEAD and found.project_dim != width:
        raise ValueError(
            f"{text_encoder} projects to {found.project_dim}, but the base's UNet takes {width}: "
            "choose another text_encoder"
        )
    shape = {name: getattr(found, name) for name in SHAPE}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {**shape, **off, "project_dim": width}


def build_encoder(altclip: dict[str, Any], pooled_width: int | None = None) -> TargetEncoder:
    """Builds an encoder of that shape with random weights."""
    config = AltCLIPTextConfig(**altclip)
    body = AltCLIPTextModel(config).roberta
    widths = config.hidden_size, config.project_dim
    return TargetEncoder(body, *widths, config.layer_norm_eps, config.pad_token_id, pooled_width)


def start_encoder(
    altclip: dict[str, Any],
    text_encoder: str,
    revision: str | None,
    pooled_width: int | None = None,
) -> TargetEncoder:
    """Builds the encoder with the weights of `text_encoder`, none of which may be missing; a head
    for the pooled vector is new.
    """
    encoder = build_encoder(altclip, pooled_width)
    head = (
        {f"pooled.{n}": t for n, t in encoder.pooled.state_dict().items()} if pooled_width else {}
    )
    if encoder_config(text_encoder, revision).model_type == WITH_HEAD:
        found = load_frozen(AltCLIPTextModel, text_encoder, revision=revision).state_dict()
        load_strict(encoder, found | head)
        return encoder
    found = load_frozen(XLMRobertaModel, text_encoder, revision=revision, add_pooling_layer=False)
    # the names of AltCLIP's body in transformers 5
    state = {
        name.replace("encoder.layer.", "encoder.layers."): tensor
        for name, tensor in found.state_dict().items()
    }
    load_strict(encoder.roberta, state)
    return encoder


def load_state(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of an exported encoder, by the names of `build_encoder`, and its config.

    Raises:
        FileNotFoundError, ValueError: the folder holds no encoder, a pickle, or another method's
            export.
    """
    config = load_artifact_config(folder, "iap")
    model = load_frozen(AltCLIPTextModel, str(Path(folder) / "text_encoder"))
    head = load_artifact(folder, "iap")[1] if config["pooled_width"] else {}
    return model.state_dict() | {f"pooled.{name}": t for name, t in head.items()}, config


def make_encoder(settings: TrainSettings, config: dict[str, Any]) -> TargetEncoder:
    """Builds the encoder that a run starts from, by the export's config; only its trainable tensors
    require gradients.

    Raises:
        FileNotFoundError, ValueError: `init_from` is no encoder of this base, start and shape.
    """
    torch.manual_seed(settings.seed)
    name, revision = settings.text_encoder, settings.text_encoder_revision
    encoder = start_encoder(config["altclip"], name, revision, config["pooled_width"])
    if settings.init_from is not None:
        state, found = load_state(settings.init_from)
        check_alike({settings.init_from: found, "this run": config}, TRAINED_BY)
        load_strict(encoder, state)
    if not settings.train_embeddings:
        freeze_embeddings(encoder.roberta)
    return add_lora(encoder, settings.lora_rank) if settings.train_encoder == "lora" else encoder


def add_lora(encoder: TargetEncoder, rank: int) -> TargetEncoder:
    """Adds LoRA to the attention and feed-forward layers; only LoRA and the whole head train."""
    from peft import LoraConfig, inject_adapter_in_model

    encoder.roberta.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(LORA_TARGETS)
    )
    inject_adapter_in_model(config, encoder.roberta)
    return encoder


def merged_state(encoder: TargetEncoder, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the whole encoder's tensors by AltCLIP's names, with LoRA merged into its layers.

    Args:
        encoder: the trained encoder, which stays unchanged.
        trained: its trained tensors by name, as gathered from all ranks.
    """
    state = {name: t.detach().cpu() for name, t in encoder.state_dict().items()} | trained
    merged = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        down = state.get(name.replace(".base_layer.weight", ".lora_A.default.weight"))
        if ".base_layer.weight" in name and down is not None:
            up = state[name.replace(".base_layer.weight", ".lora_B.default.weight")]
            tensor = tensor + up.to(tensor.dtype) @ down.to(tensor.dtype)  # alpha / r is 1
        merged[name.replace(".base_layer.", ".")] = tensor
    return merged


def stock_model(altclip: dict[str, Any], state: dict[str, Tensor]) -> AltCLIPTextModel:
    """Builds a `transformers.AltCLIPTextModel` with these weights, for stock diffusers."""
    config = AltCLIPTextConfig(**altclip)
    # diffusers passes the mask only if the config asks for it; without it, padding is attended to
    config.use_attention_mask = True
    model = AltCLIPTextModel(config)
    load_strict(model, state)
    return model.eval().requires_grad_(False)
