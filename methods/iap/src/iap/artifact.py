"""Writes the trained encoder as a folder that stock transformers and diffusers load, and reads it
back.

    FOLDER/config.json      IAP's settings: languages, base, length, recommended guidance
    FOLDER/README.md        the model card
    FOLDER/text_encoder/    a transformers AltCLIPTextModel
    FOLDER/tokenizer/       its XLMRobertaTokenizer
    FOLDER/model.safetensors  the head for the pooled vector, on bases that take one
    FOLDER/pipeline/        optional: the whole base with both in place
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.adapter.artifact import load_adapter as load_artifact
from crosslingual.adapter.artifact import (
    load_artifact_config,
    load_strict,
    model_card,
    save_artifact,
)
from crosslingual.adapter.pipeline import set_text_encoder
from crosslingual.adapter.text_encoder import AdaptedTextEncoder
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import MultilingualEncoder
from crosslingual.frozen.weights import load_frozen, locate
from iap.data import caption_length, load_tokenizer, open_base
from iap.encoder import altclip_config, make_encoder, merged_state, start_encoder, stock_model
from iap.method import build_adapter
from iap.settings import TrainSettings

CARD = """\
A text encoder of {count:,} parameters for the Stable Diffusion base `{base}`, in place of its
English one: it started from `{text_encoder}` and was aligned with that one by IAP (arXiv
2305.11540; objective {objective}, branch {branch}, distance {distance}). It is a
`transformers` `AltCLIPTextModel`, which a stock diffusers pipeline takes as its text encoder:

```python
{import_base}
from transformers import AltCLIPTextModel, XLMRobertaTokenizer

pipe = {load_base}
pipe.register_modules(
    text_encoder=AltCLIPTextModel.from_pretrained("this/folder", subfolder="text_encoder"),
    tokenizer=XLMRobertaTokenizer.from_pretrained("this/folder", subfolder="tokenizer"),
)
pipe("...", guidance_scale={guidance_scale}{call}).images[0]
```
"""
POOLED_CARD = """\
A text encoder of {count:,} parameters for the base `{base}`, in place of its English ones: it
started from `{text_encoder}` and was aligned with them by IAP (arXiv 2305.11540; objective
{objective}, branch {branch}, distance {distance}), with a head for the pooled vector that this base
takes.

```python
{import_base}
import iap

pipe = {load_base}
iap.attach(pipe, "this/folder")
pipe("...", guidance_scale={guidance_scale}{call}).images[0]
```
"""


def encoder_config(settings: TrainSettings) -> dict[str, Any]:
    """Builds the exported config.json: the encoder's shape, its base and its initial weights.

    Raises:
        ValueError: the base has no cross-attention.
    """
    base = open_base(settings)
    encoder, revision = settings.text_encoder, settings.text_encoder_revision
    altclip = altclip_config(encoder, revision, base.text.width)
    config = {
        "method": "iap",
        "width": base.text.width,
        "pooled_width": base.text.pooled_width,
        "altclip": altclip,
        "max_length": caption_length(settings),
        "null_policy": "encoder",
        "base": base.location,
        "base_revision": settings.revision,
        "text_encoder": locate(encoder),
        "text_encoder_revision": revision,
        "languages": settings.target_language,
        "objective": settings.objective,
        "branch": settings.branch,
        "layers": settings.layers,
        "distance": settings.distance,
        "guidance_scale": settings.guidance_scale,
        "seed": settings.seed if settings.init_from is None else None,
    }
    if settings.objective == "clip_attention":
        config |= {"clip": locate(settings.clip), "clip_revision": settings.clip_revision}
    if base.family.adapted_options:
        config["call_options"] = dict(base.family.adapted_options)
    return config


def save_encoder(
    state: dict[str, Tensor], config: dict[str, Any], folder: str | Path, *, pipeline: bool = False
) -> Path:
    """Writes the encoder's folder, complete or not at all.

    Args:
        state: all of the encoder's tensors, by the names of `AltCLIPTextModel`.
        config: the result of `encoder_config`.
        folder: replaced if it already holds an adapter.
        pipeline: write the whole base with this encoder too.
    """
    head = {n.removeprefix("pooled."): t for n, t in state.items() if n.startswith("pooled.")}
    model = stock_model(
        config["altclip"], {n: t for n, t in state.items() if not n.startswith("pooled.")}
    )
    tokenizer = load_tokenizer(
        config["text_encoder"], config["text_encoder_revision"], config["max_length"]
    )

    def add(partial: Path) -> None:
        model.save_pretrained(partial / "text_encoder")
        tokenizer.save_pretrained(partial / "tokenizer")
        if pipeline:
            pipe = Base.open(config["base"], config["base_revision"]).load_pipeline()
            pipe = place(pipe, model, tokenizer, config, head)
            pipe.save_pretrained(partial / "pipeline")

    count = sum(tensor.numel() for tensor in state.values())
    text = POOLED_CARD if head else CARD
    card = model_card("IAP text encoder", text, config, count=count)
    return save_artifact(folder, state=head or None, config=config, card=card, add=add)


def place(
    pipe: Any, model: Any, tokenizer: Any, config: dict[str, Any], head: dict[str, Tensor]
) -> Any:
    """Puts an encoder in a pipeline, with its head for the pooled vector where it has one, as one
    text encoder.
    """
    if not head:
        return set_text_encoder(pipe, model, tokenizer, width=config["width"])
    adapter = build_adapter(config)
    load_strict(adapter, head)
    encoder = MultilingualEncoder("", model, tokenizer, config["max_length"])
    whole = AdaptedTextEncoder.of(encoder, adapter, config, config["max_length"])
    widths = {"width": config["width"], "pooled_width": config["pooled_width"]}
    return set_text_encoder(pipe, whole, tokenizer, **widths)


def save_trained(
    settings: TrainSettings,
    trained: dict[str, Tensor],
    folder: str | Path,
    *,
    pipeline: bool = False,
) -> Path:
    """Saves a run's trained tensors, after adding the frozen weights under LoRA."""
    config = encoder_config(settings)
    encoder = make_encoder(settings, config)
    return save_encoder(merged_state(encoder, trained), config, folder, pipeline=pipeline)


def initial_state(config: dict[str, Any]) -> dict[str, Tensor]:
    """The same tensors as a training by the config's `seed` starts them, with LoRA or without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        name, revision = config["text_encoder"], config["text_encoder_revision"]
        start = start_encoder(config["altclip"], name, revision, config["pooled_width"])
    return start.state_dict()


def load_head(folder: str | Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of the head for the pooled vector in an export; empty where it has none."""
    if not config["pooled_width"]:
        return {}
    return load_artifact(folder, "iap", build_adapter)[0].state_dict()


def load_encoder(folder: str | Path) -> tuple[Any, Any, dict[str, Any]]:
    """Reads an exported encoder: the `AltCLIPTextModel`, its tokenizer and the config.

    Raises:
        FileNotFoundError, ValueError: the folder holds no encoder, a pickle, another method's
            export, or keys that do not match.
    """
    from transformers import AltCLIPTextModel

    folder = Path(folder)
    config = load_artifact_config(folder, "iap")
    model = load_frozen(AltCLIPTextModel, str(folder / "text_encoder"))
    return model, load_tokenizer(str(folder / "tokenizer"), None, config["max_length"]), config
