"""The frozen parts of retrieval: the one place where pictures and captions become arrays."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from crosslingual.features.ragged import Ragged
from crosslingual.frozen.clip import FrozenCLIP, clip_shape, load_clip
from crosslingual.frozen.encoders import (
    MultilingualEncoder,
    encoder_shape,
    load_multilingual_encoder,
)
from crosslingual.frozen.weights import weights_hash

STORED = torch.float16


@dataclass
class RetrievalParts:
    """The frozen CLIP and the frozen multilingual encoder, each loaded when it is first needed: who
    reads features loads none.

    Attributes:
        clip_name: id of the CLIP.
        encoder_name: id of the multilingual encoder.
        languages: whose captions are encoded.
        max_length: tokens a caption; the tokenizer's own limit, and at most 77, if None.
        clip_revision, encoder_revision: of the hub entries.
        device: where the frozen parts run.
    """

    clip_name: str
    encoder_name: str
    languages: list[str]
    max_length: int | None = None
    clip_revision: str | None = None
    encoder_revision: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def clip(self) -> FrozenCLIP:
        """The CLIP."""
        loaded = load_clip(self.clip_name, self.clip_revision)
        loaded.model.to(self.device)
        return loaded

    @cached_property
    def encoder(self) -> MultilingualEncoder:
        """The multilingual encoder."""
        loaded = load_multilingual_encoder(
            self.encoder_name, self.encoder_revision, self.max_length
        )
        loaded.model.to(self.device)
        return loaded

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What the arrays depend on, for the features' key; no model is loaded for it."""
        longest = encoder_shape(self.encoder_name, self.encoder_revision)[1]
        return {
            "clip": self.clip_name,
            "clip_revision": self.clip_revision,
            "clip_weights": weights_hash(self.clip_name),
            "clip_image_size": clip_shape(self.clip_name, self.clip_revision)[1],
            "encoder": self.encoder_name,
            "encoder_revision": self.encoder_revision,
            "encoder_weights": weights_hash(self.encoder_name),
            "max_length": self.max_length or longest,
            "languages": self.languages,
            "dtype": str(STORED).removeprefix("torch."),
        }

    def has_language(self, captions: list[dict[str, list[str]]]) -> Tensor:
        """Which of the languages each sample has a caption in: (B, N)."""
        return torch.tensor([[bool(c.get(name)) for name in self.languages] for c in captions])

    @torch.no_grad()
    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor | Ragged]:
        """Arrays of a loader's batch of B samples with captions in N languages.

        Returns:
            image_embeds (B, P); text_embeds (B, P) of the first English caption, zeros where there
            is none; has_english (B,), has_language (B, N); states_LANGUAGE, the token states of the
            first caption in each language, of length 0 where there is none.
        """
        captions = batch["captions"]
        arrays = {
            "image_embeds": self.embed_images(batch["images"]),
            "text_embeds": self.embed_english([_first(c, "en") for c in captions]),
            "has_english": torch.tensor([bool(c.get("en")) for c in captions]),
            "has_language": self.has_language(captions),
        }
        for language in self.languages:
            texts = [_first(c, language) for c in captions]
            arrays[f"states_{language}"] = self.caption_states(texts)
        return arrays

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """CLIP's embeddings of pictures (B, 3, H, W) in [-1, 1], as stored: (B, P)."""
        return self.clip.encode_images(images.to(self.device)).to("cpu", STORED)

    @torch.no_grad()
    def embed_english(self, texts: list[str]) -> Tensor:
        """CLIP's embeddings of English texts, as stored, zeros for empty ones: (B, P)."""
        embeds = torch.zeros(len(texts), self.clip.width, dtype=STORED)
        there = [place for place, text in enumerate(texts) if text]
        if there:
            found = self.clip.encode_texts([texts[place] for place in there])
            embeds[there] = found.to("cpu", STORED)
        return embeds

    @torch.no_grad()
    def caption_states(self, texts: list[str]) -> Ragged:
        """The encoder's token states of captions, as stored, of length 0 for empty ones."""
        lengths = torch.zeros(len(texts), dtype=torch.long)
        there = [place for place, text in enumerate(texts) if text]
        if not there:
            return Ragged(torch.zeros(0, self.encoder.width, dtype=STORED), lengths)
        found = self.encoder.encode_packed([texts[place] for place in there]).to("cpu", STORED)
        lengths[there] = found.lengths
        return Ragged(found.values, lengths)

    def null(self) -> dict[str, Tensor]:
        """Nothing: TriKD has no empty prompt."""
        return {}


def _first(captions: dict[str, list[str]], language: str) -> str:
    texts = captions.get(language)
    return texts[0] if texts else ""
