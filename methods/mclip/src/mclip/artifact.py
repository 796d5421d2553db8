"""The projectors as a folder: its config, writing and reading."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.adapter.artifact import (
    load_artifact,
    load_start,
    load_strict,
    model_card,
    save_artifact,
)
from crosslingual.frozen.clip import clip_shape
from crosslingual.frozen.encoders import encoder_shape, load_multilingual_encoder
from crosslingual.frozen.weights import freeze, locate, resolve, weights_hash
from mclip.method import TriKD
from mclip.settings import ImportSettings, TrainSettings

BUNDLED = "encoder"

CARD = """\
The projectors of mCLIP (ACL 2023): {count:,} parameters by which the frozen CLIP `{clip}` and the
frozen text encoder `{text_encoder}` share one space of width {width}, trained by triangle knowledge
distillation. Pictures and texts are compared by the cosine of their vectors.

```bash
mclip search --model this/folder --images pictures --query "..." --output found.png
mclip embed --model this/folder --images pictures --output index
```
"""


def projector_shape(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of `TriKD`: the widths of both frozen sides and the X-projector's layers."""
    return {
        "clip_width": clip_shape(settings.clip, settings.clip_revision)[0],
        "width": encoder_shape(settings.text_encoder, settings.text_encoder_revision)[0],
        "num_layers": settings.num_layers,
        "num_heads": settings.num_heads,
        "ffn_width": settings.ffn_width,
        "dropout": settings.dropout,
        "attention_dropout": settings.attention_dropout,
    }


def model_config(
    settings: TrainSettings | ImportSettings, shape: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The model's config.json: the projectors' shape, and the frozen parts that they were trained
    on, with hashes of weights on this disk.

    Args:
        settings: of the training or the import.
        shape: the projectors'; computed from the settings if None.
    """
    clip, encoder = settings.clip, settings.text_encoder
    max_length = settings.max_length
    return {
        "method": "mclip",
        **(projector_shape(settings) if shape is None else shape),
        "max_length": max_length or encoder_shape(encoder, settings.text_encoder_revision)[1],
        "resolution": settings.resolution,
        "clip": locate(clip),
        "clip_revision": settings.clip_revision,
        "clip_weights": weights_hash(clip),
        "text_encoder": locate(encoder),
        "text_encoder_revision": settings.text_encoder_revision,
        "text_encoder_weights": weights_hash(encoder),
        "languages": settings.languages,
    }


def save_model(
    state: dict[str, Tensor],
    config: dict[str, Any],
    folder: str | Path,
    *,
    bundle_encoder: bool = False,
    source: str | None = None,
) -> Path:
    """Writes config.json, model.safetensors and the model card.

    Args:
        state: `TriKD`'s tensors.
        config: of `model_config`.
        folder: replaced if it holds a model already.
        bundle_encoder: put a copy of the multilingual encoder into the folder, which config.json
            then names, so that the folder can be moved.
        source: folder of that encoder, where the config names another form of it.
    """
    card = model_card(
        "mCLIP projectors",
        CARD,
        config,
        base_model=config["clip"],
        pipeline_tag="zero-shot-image-classification",
        tags=["retrieval"],
        count=sum(tensor.numel() for tensor in state.values()),
    )
    name, revision = config["text_encoder"], config["text_encoder_revision"]
    if bundle_encoder:
        config = {**config, "text_encoder": BUNDLED, "text_encoder_revision": None}

    def add_encoder(partial: Path) -> None:
        _copy_encoder(source or name, revision, partial / BUNDLED)
        # save_artifact writes the config after this
        config["text_encoder_weights"] = weights_hash(str(partial / BUNDLED))
        config["has_encoder"] = True

    add = add_encoder if bundle_encoder else None
    save_artifact(folder, state=state, config=config, card=card, add=add)
    return Path(folder)


def _copy_encoder(name: str, revision: str | None, folder: Path) -> None:
    if Path(resolve(name)).is_dir():
        shutil.copytree(resolve(name), folder)
        return
    encoder = load_multilingual_encoder(name, revision)
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def start_model(settings: TrainSettings, config: dict[str, Any]) -> TriKD:
    """The projectors that a run starts from: those of `init_from`, or new ones by its seed.

    Raises:
        FileNotFoundError, ValueError: `init_from` holds no projectors after this CLIP and this
            encoder, or others of another shape.
    """
    torch.manual_seed(settings.seed)
    trikd = TriKD(config)
    if settings.init_from is not None:
        load_start(trikd, settings.init_from, config)
    return trikd


def load_model(folder: str | Path) -> tuple[TriKD, dict[str, Any]]:
    """Reads an exported model, frozen, and its config, whose `text_encoder` is then a path or id
    that can be loaded from here.

    Raises:
        FileNotFoundError: the folder holds no model, or its frozen parts are not there any more.
        ValueError: a pickle, another method's folder, keys that do not fit, or frozen parts with
            other weights than those that the projectors were trained on.
    """
    config, state = load_artifact(folder, "mclip")
    if "clip_width" not in config:
        raise ValueError(f"{folder} holds no projectors of mclip; `mclip export` writes some")
    if config.pop("has_encoder", False):
        config["text_encoder"] = str(Path(folder) / BUNDLED)
    for part in ("clip", "text_encoder"):
        found = weights_hash(config[part])
        if config[f"{part}_weights"] and not found:
            raise FileNotFoundError(
                f"{config[part]}, which {folder} was trained on, is gone: bring it back; a model "
                "exported with --bundle_encoder holds its encoder itself"
            )
        if config[f"{part}_weights"] not in (None, found):
            raise ValueError(
                f"the weights of {config[part]} are not those that {folder} was trained on: put "
                "the old ones back, or train on the new ones"
            )
    with torch.random.fork_rng(devices=[]):  # the caller's
        trikd = TriKD(config)
    load_strict(trikd, state)
    return freeze(trikd), config
