"""IAP's training data: latents, English states, token ids of target captions, and optionally the
queries of English passes.

The encoder trains, so its states cannot be stored, but its token ids can. The English branch is
frozen from end to end, so each layer's queries, the target branch's only input from it, can be too.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.features.frozen_parts import (
    STORED,
    FrozenParts,
    draw_generators,
    english_text,
)
from crosslingual.frozen.base import Base
from crosslingual.frozen.clip import FrozenCLIP
from crosslingual.frozen.encoders import encoder_shape
from crosslingual.frozen.schedule import Noising
from crosslingual.frozen.tokens import tokenize
from crosslingual.frozen.weights import locate, open_tokenizer, resolve, weights_hash
from iap.clip import open_clip, picture_patches
from iap.method import AttentiveFeatures
from iap.settings import TrainSettings

TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.bpe.model", "tokenizer_config.json")


@dataclass
class TripletParts:
    """The frozen parts that encode triplets of picture, English caption and target captions once;
    each part is loaded on first use.

    Attributes:
        settings: settings of the run, which name the parts.
        device: device that the parts run on.
        base: the base, named by its local path, which identifies it in the features.

    Raises:
        ValueError: no target language is named, or the base has no cross-attention.
    """

    settings: TrainSettings
    device: torch.device
    base: Base = field(init=False)

    def __post_init__(self) -> None:
        """Rejects settings without a target language, and unsuitable bases, before any part is
        loaded.
        """
        if not self.settings.target_language:
            raise ValueError(
                "target_language is not set: name the languages whose captions train, such as "
                "--target_language zh"
            )
        self.base = open_base(self.settings)

    @property
    def languages(self) -> list[str]:
        """Languages of the target captions, in the order of their axis."""
        return self.settings.target_language

    @cached_property
    def frozen(self) -> FrozenParts:
        """VAE and English text encoder."""
        return FrozenParts(self.base, None, self.languages, device=self.device)

    @cached_property
    def english_pass(self) -> tuple[AttentiveFeatures, Noising]:
        """The UNet with all its cross-attentions recorded, and its noise schedule."""
        settings = self.settings
        denoiser = self.base.load_denoiser(self.device, resolution=settings.resolution)
        noising = self.base.schedule(device=self.device, noise_offset=settings.noise_offset)
        attentions = [attention for _, attention in denoiser.cross_attentions()]
        return AttentiveFeatures(denoiser.predict, attentions), noising

    @cached_property
    def clip(self) -> FrozenCLIP:
        """The CLIP whose patches are the queries of `objective: clip_attention`."""
        clip = open_clip(self.settings, self.frozen.null()["english_states"])
        clip.model.to(self.device)
        return clip

    @cached_property
    def max_length(self) -> int:
        """Tokens per target caption."""
        return caption_length(self.settings)

    @cached_property
    def tokenizer(self) -> Any:
        """The target encoder's tokenizer, which pads on the right to `max_length`."""
        name, revision = self.settings.text_encoder, self.settings.text_encoder_revision
        return load_tokenizer(name, revision, self.max_length)

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """Everything that the arrays depend on, found without loading a model."""
        settings = self.settings
        made_of = {
            **self.frozen.made_of,
            "tokenizer": locate(settings.text_encoder),
            "tokenizer_revision": settings.text_encoder_revision,
            "tokenizer_files": tokenizer_hash(settings.text_encoder),
            "max_length": self.max_length,
        }
        if settings.objective == "clip_attention":
            made_of |= {
                "clip": locate(settings.clip),
                "clip_revision": settings.clip_revision,
                "clip_weights": weights_hash(settings.clip),
            }
        if not settings.english_draws:  # a run without stored queries can read features with them
            return made_of
        return {
            **made_of,
            "english_draws": settings.english_draws,
            "query_positions": settings.query_positions,
            "noise_offset": settings.noise_offset,
            "unet_weights": self.base.weights_hash("denoiser"),
        }

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids (B, max_length) int32; longer texts are truncated and keep their end token."""
        texts = [self.base.family.prompt(text) for text in texts]
        return tokenize(self.tokenizer, texts, self.max_length, "max_length").input_ids.int()

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Encodes a loader's batch of B samples in N languages.

        Returns:
            The arrays of `FrozenParts.encode`; `target_ids` (B, N, max_length) of the first caption
            in each language; with `english_draws`, the queries of each cross-attention as
            `queries_0` and so on, (B, draws, P, W); with `objective: clip_attention`, the pictures'
            `clip_patches` (B, N, P) and CLIP's own embedding of the English caption as
            `english_pooled` (B, P).
        """
        captions = batch["captions"]
        texts = [(c.get(name) or [""])[0] for c in captions for name in self.languages]
        ids = self.ids(texts).unflatten(0, (len(captions), len(self.languages)))
        arrays = {**self.frozen.encode(batch), "target_ids": ids}
        if self.settings.objective == "clip_attention":
            patches = picture_patches(self.clip, batch["images"].to(self.device))
            arrays["clip_patches"] = patches.to("cpu", STORED)
            arrays |= self._embeddings([(c.get("en") or [""])[0] for c in captions])
        return arrays | (self.queries(arrays, batch["keys"]) if self.settings.english_draws else {})

    def _embeddings(self, english: list[str]) -> dict[str, Tensor]:
        return {"english_pooled": self.clip.encode_texts(english).to("cpu", STORED)}

    @torch.no_grad()
    def queries(self, arrays: dict[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
        """The queries of English passes over noisy latents, seeded by the sample's key."""
        features, noising = self.english_pass
        english = english_text(arrays, self.device)
        draws = []
        for draw in range(self.settings.english_draws):
            rows = draw_generators(keys, draw)
            noisy = noising.draw(arrays, rows)
            features.run(noisy.latents, noisy.timesteps, english, stop_early=True)
            draws.append([self._some_positions(q, rows) for q in features.queries])
        return {
            f"queries_{n}": torch.stack(q, dim=1) for n, q in enumerate(zip(*draws, strict=True))
        }

    def _some_positions(self, query: Tensor, rows: list[torch.Generator]) -> Tensor:
        """Turns queries (B, H, P, W / H) into their stored form (B, P', W)."""
        stored = query.transpose(1, 2).flatten(2).to("cpu", STORED)
        num_positions, num_kept = stored.shape[1], self.settings.query_positions
        if num_kept is None or num_kept >= num_positions:
            return stored
        kept = [torch.randperm(num_positions, generator=row) for row in rows]
        places = torch.stack(kept)[:, :num_kept]
        return stored.gather(1, places[..., None].expand(-1, -1, stored.shape[2]))

    def null(self) -> dict[str, Tensor]:
        """The empty prompt: `english_states` (M, D) and `target_ids` (max_length,), and what else
        `encode` gives of a caption.
        """
        null = {**self.frozen.null(), "target_ids": self.ids([""])[0]}
        if self.settings.objective == "clip_attention":
            null["english_pooled"] = self._embeddings([""])["english_pooled"][0]
        return null


def open_base(settings: TrainSettings) -> Base:
    """Opens the base of a run.

    Raises:
        FileNotFoundError: there is no such base.
        ValueError: it has no cross-attention.
    """
    base = Base.open(locate(settings.pretrained_model_name_or_path), settings.revision)
    if not base.family.has_cross_attention:
        raise ValueError(
            f"{base.id} attends to text and picture in one (family {base.family.name}): IAP "
            "compares the outputs of cross-attention, so choose a base that has it"
        )
    return base


def caption_length(settings: TrainSettings) -> int:
    """Tokens per target caption: `max_length` if it is set, or else the encoder's limit."""
    longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)[1]
    return settings.max_length or longest


def load_tokenizer(name: str, revision: str | None, max_length: int) -> Any:
    """Loads an encoder's tokenizer, set up as training and pipelines both use it."""
    tokenizer = open_tokenizer(name, revision)
    tokenizer.padding_side, tokenizer.model_max_length = "right", max_length
    return tokenizer


def tokenizer_hash(name: str) -> str | None:
    """A hash of a local tokenizer's files; None for a hub id."""
    folder = Path(resolve(name))
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in (folder / file for file in TOKENIZER_FILES):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()
