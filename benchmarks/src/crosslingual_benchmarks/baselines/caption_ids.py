"""The data of full fine-tuning: latents of pictures and token ids of their captions."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.frozen.base import Base
from crosslingual.frozen.tokens import tokenize
from crosslingual.frozen.weights import resolve


@dataclass
class CaptionIdParts:
    """The base's VAE, and a tokenizer to `max_length` tokens, which samples pass once."""

    base: Base
    encoder: str
    languages: list[str]
    max_length: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def frozen(self) -> FrozenParts:
        """The base's VAE."""
        return FrozenParts(self.base, None, self.languages, device=self.device, with_english=False)

    @cached_property
    def tokenizer(self) -> Any:
        """Pads on the right to `max_length`."""
        tokenizer = AutoTokenizer.from_pretrained(resolve(self.encoder), trust_remote_code=False)
        tokenizer.padding_side, tokenizer.model_max_length = "right", self.max_length
        return tokenizer

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """The settings and weights that the arrays depend on."""
        place = Path(resolve(self.encoder)).name
        return {**self.frozen.made_of, "tokenizer": place, "max_length": self.max_length}

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids (B, max_length) int32; longer texts are cut with their end token kept."""
        return tokenize(self.tokenizer, texts, self.max_length, "max_length").input_ids.int()

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Those of `FrozenParts.encode`, and `ids` (B, N, max_length) of the first caption in each
        language.
        """
        captions = batch["captions"]
        texts = [(c.get(name) or [""])[0] for c in captions for name in self.languages]
        ids = self.ids(texts).unflatten(0, (len(captions), len(self.languages)))
        return {**self.frozen.encode(batch), "ids": ids}

    def null(self) -> dict[str, Tensor]:
        """The empty prompt: `ids` (max_length,)."""
        return {"ids": self.ids([""])[0]}
