"""The frozen parts that samples pass through: the one place where a batch of pictures and captions
becomes arrays.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from crosslingual.frozen.base import TEXT_ENCODERS, Base, Conditioning, TextEncoders
from crosslingual.frozen.encoders import (
    MultilingualEncoder,
    encoder_shape,
    load_multilingual_encoder,
)
from crosslingual.frozen.weights import weights_hash

STORED = torch.float16
USED_OF_BASE = ("vae", *TEXT_ENCODERS)


@dataclass
class FrozenParts:
    """The frozen parts that a generating method's samples pass through once. Each is loaded when it
    is first needed, so that training from features loads none.

    Attributes:
        base: for its VAE and its own text encoders.
        encoder: id of the multilingual encoder, or None where the method needs no states of it.
        languages: whose captions are encoded, in the order of the language axis.
        max_length: tokens of the multilingual states; the tokenizer's own limit if None.
        encoder_revision: of the encoder's hub entry.
        device: where the frozen parts run.
        with_english: whether the base's own text states are among the arrays.
        with_mask: whether the mask of the multilingual states is.
    """

    base: Base
    encoder: str | None
    languages: list[str]
    max_length: int | None = None
    encoder_revision: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    with_english: bool = True
    with_mask: bool = False

    @cached_property
    def vae(self) -> Any:
        """The base's; captions without pictures never load it."""
        return self.base.load_vae(self.device)

    @cached_property
    def english(self) -> TextEncoders:
        """The base's own text encoders."""
        return self.base.load_text(self.device)

    @cached_property
    def multilingual(self) -> MultilingualEncoder | None:
        """The multilingual encoder, if the method has one."""
        if self.encoder is None:
            return None
        loaded = load_multilingual_encoder(self.encoder, self.encoder_revision, self.max_length)
        loaded.model.to(self.device)
        return loaded

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What the arrays depend on. It loads no model, but hashes the weights on this disk."""
        max_length = self.max_length
        if self.encoder is not None and max_length is None:
            max_length = encoder_shape(self.encoder, self.encoder_revision)[1]
        return {
            "base": self.base.id,
            "revision": self.base.revision,
            "base_weights": self.base.weights_hash(*USED_OF_BASE),
            "encoder": self.encoder,
            "encoder_revision": self.encoder_revision,
            "encoder_weights": weights_hash(self.encoder) if self.encoder else None,
            "max_length": max_length,
            "languages": self.languages,
            "dtype": str(STORED).removeprefix("torch."),
            **({} if self.with_english else {"with_english": False}),
            **({"with_mask": True} if self.with_mask else {}),
            **({"prompts": "small letters"} if self.base.family.prompt("A") == "a" else {}),
        }

    @torch.no_grad()
    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Arrays of a loader's batch of B samples with captions in N languages.

        Returns:
            latent_mean, latent_std (B, 4, h, w), where there are pictures; english_states (B, L, D)
            and, where the base has them, english_pooled (B, P) and english_mask (B, L), of the
            first English caption; multilingual_states (B, N, M, C) and, if wanted,
            multilingual_mask (B, N, M), of the first caption in each language; has_english (B,),
            has_language (B, N), native (B,): whether the captions are no translations of one
            another, so that English cannot teach.
        """
        arrays, captions = {}, batch["captions"]
        if batch["images"] is not None:
            images = batch["images"].to(self.device)
            mean, std = self.base.family.posterior(self.vae, images)
            arrays = {"latent_mean": mean, "latent_std": std}
        shape = (len(captions), len(self.languages))
        english = [(c.get("en") or [""])[0] for c in captions]
        texts = [(c.get(name) or [""])[0] for c in captions for name in self.languages]
        arrays |= _once(self._english, english)
        states = _once(self._multilingual, texts)
        arrays |= {name: array.unflatten(0, shape) for name, array in states.items()}
        has_language = [[bool(c.get(name)) for name in self.languages] for c in captions]
        arrays["has_english"] = torch.tensor([bool(c.get("en")) for c in captions])
        arrays["has_language"] = torch.tensor(has_language)
        arrays["native"] = ~batch["parallel"]
        return _stored(arrays)

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt: english_states (L, D), english_pooled (P,),
        multilingual_states (M, C), multilingual_mask (M,), those that `encode` gives.
        """
        arrays = self._english([""]) | self._multilingual([""])
        return {name: array[0] for name, array in _stored(arrays).items()}

    def _english(self, texts: list[str]) -> dict[str, Tensor]:
        if not self.with_english:
            return {}
        found = self.english.encode(texts)._asdict()
        return {f"english_{name}": array for name, array in found.items() if array is not None}

    def _multilingual(self, texts: list[str]) -> dict[str, Tensor]:
        if self.multilingual is None:
            return {}
        states, mask = self.multilingual.encode([self.base.family.prompt(t) for t in texts])
        masks = {"multilingual_mask": mask.bool()} if self.with_mask else {}
        return {"multilingual_states": states, **masks}


def placed(array: Tensor, device: torch.device) -> Tensor:
    """A stored array on a device, floats in fp32."""
    return array.to(device, torch.float32 if array.is_floating_point() else None)


def english_text(arrays: dict[str, Tensor], device: torch.device) -> Conditioning:
    """What a denoiser sees of the English captions of `FrozenParts.encode`."""
    found = (arrays.get(f"english_{name}") for name in Conditioning._fields)
    return Conditioning(*(None if a is None else placed(a, device) for a in found))


def draw_generators(keys: Sequence[str], draw: int) -> list[torch.Generator]:
    """A random generator a sample, seeded by its key and the number of the draw."""
    seeds = [zlib.crc32(f"{key} {draw}".encode()) for key in keys]
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _once(encode: Callable[[list[str]], dict[str, Tensor]], texts: list[str]) -> dict[str, Tensor]:
    """Encodes equal texts once, such as the empty ones in the place of absent captions."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    rows = torch.tensor([places[text] for text in texts], dtype=torch.long)
    return {name: array[rows] for name, array in encode(list(places)).items()}


def _stored(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """On CPU, floats as they are stored."""
    return {
        name: array.to("cpu", STORED if array.is_floating_point() else None)
        for name, array in arrays.items()
    }
