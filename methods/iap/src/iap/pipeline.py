"""Puts an exported encoder into a pipeline, which then reads the encoder's languages, or beside the
CLIP in whose space it was trained.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.evaluation import embedder
from crosslingual.frozen.base import Base
from crosslingual.frozen.clip import load_clip
from crosslingual.frozen.tokens import tokenize
from iap.artifact import load_encoder, load_head, place


def attach(pipe: Any, folder: str | Path) -> Any:
    """Makes any diffusers pipeline on the encoder's base read the encoder's languages.

    Args:
        pipe: text-to-image, img2img, inpainting, ControlNet, with LoRA or LCM: any pipeline with a
            `text_encoder`.
        folder: folder of an exported encoder.

    Returns:
        The pipeline.

    Raises:
        ValueError: the encoder's width or pooled vector is not what the denoiser takes.
    """
    model, tokenizer, config = load_encoder(folder)
    return place(pipe, model, tokenizer, config, load_head(folder, config))


def load_pipeline(path: str, base: str | None = None) -> Any:
    """Loads the encoder's base (or another one of its family) with the encoder in place."""
    model, tokenizer, config = load_encoder(path)
    opened = Base.open(base or config["base"], None if base else config["base_revision"])
    pipe = opened.load_pipeline(with_text=False)
    return place(pipe, model, tokenizer, config, load_head(path, config))


@dataclass(frozen=True, kw_only=True)
class Embedder(embedder.Embedder):
    """Texts through an exported encoder, pictures through its CLIP.

    Attributes:
        model: the encoder.
        tokenizer: its tokenizer.
        max_length: tokens of a text.
    """

    model: nn.Module
    tokenizer: Any
    max_length: int

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Rows (B, D) of texts, not normalised: the first state in CLIP's space."""
        tokens = tokenize(self.tokenizer, texts, self.max_length).to(self.model.device)
        states = self.model(tokens.input_ids, attention_mask=tokens.attention_mask)
        return self.clip.model.text_projection(states.last_hidden_state[:, 0])


def load_embedder(path: str) -> Embedder:
    """Loads an encoder that was trained by `objective: clip_attention`, and its CLIP.

    Raises:
        FileNotFoundError, ValueError: as `load_encoder`; another objective trained it, so that its
            captions have no place in CLIP's space.
    """
    model, tokenizer, config = load_encoder(path)
    if config["objective"] != "clip_attention":
        raise ValueError(
            f"{path} was trained by {config['objective']}, which gives captions no place among "
            "CLIP's pictures: train with --objective clip_attention"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clip = load_clip(config["clip"], config["clip_revision"])
    clip.model.to(device), model.to(device)
    return Embedder(
        clip=clip,
        resolution=clip.image_size,
        model=model,
        tokenizer=tokenizer,
        max_length=config["max_length"],
    )
