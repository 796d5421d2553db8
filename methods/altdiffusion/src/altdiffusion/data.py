"""Training data of the UNet's stages: latents of pictures, and states of captions per language.

Features hold both, computed once. From shards, the VAE encodes pictures during training, and the
text encoder encodes only the caption drawn for each picture; both ways give the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from altdiffusion.settings import TrainSettings
from altdiffusion.text.encoder import (
    TextEncoder,
    load_text_encoder,
    load_tokenizer,
    student_config,
    student_places,
    unpack,
)
from altdiffusion.unet import check_width, open_base
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.ragged import Ragged
from crosslingual.features.training_data import TrainingData, open_run_data
from crosslingual.frozen.weights import weights_hash
from crosslingual.training.processes import Ranks

STORED = torch.float16
STATES, LENGTHS = "caption_states", "caption_lengths"

# B samples, N languages, M tokens that the UNet sees, D width of their states


class FrozenParts:
    """VAE and trained text encoder, each loaded on first use.

    Attributes:
        settings: settings of the run: base, text encoder, languages and tokens per prompt.
        base: the diffusion base, for its VAE.
        languages: languages of the captions to encode.
        device: device that the parts run on.
    """

    def __init__(self, settings: TrainSettings, device: torch.device):
        """Opens the base, and refuses one that does not suit; loads no weights."""
        self.base = open_base(settings)
        check_width(settings, self.base)
        self.settings, self.languages, self.device = settings, settings.languages, device

    @cached_property
    def vae(self) -> Any:
        """The base's VAE."""
        return self.base.load_vae(self.device)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The trained text encoder."""
        loaded = trained_encoder(self.settings)
        loaded.model.to(self.device)
        return loaded

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """Everything that the arrays depend on, as the features' key; local weights are hashed."""
        settings = self.settings
        name = settings.text_encoder, settings.text_encoder_revision
        student_config(*name)  # rejects another type of model before calling features stale
        return {
            "base": self.base.id,
            "revision": self.base.revision,
            "vae_weights": self.base.weights_hash("vae"),
            "text_encoder_revision": name[1],
            # a hash, not a path: the folder may be moved
            "text_encoder": weights_hash(student_places(name[0])[0]) or name[0],
            "max_length": load_tokenizer(*name, settings.max_length).model_max_length,
            "languages": self.languages,
            "dtype": str(STORED).removeprefix("torch."),
        }

    @torch.no_grad()
    def latents(self, images: Tensor) -> dict[str, Tensor]:
        """Mean and standard deviation of latents (B, 4, h, w), as stored; pictures in [-1, 1]."""
        posterior = self.base.family.posterior(self.vae, images.to(self.device))
        names = ("latent_mean", "latent_std")
        return {n: array.to("cpu", STORED) for n, array in zip(names, posterior, strict=True)}

    def has_language(self, captions: list[dict[str, list[str]]]) -> Tensor:
        """Whether each sample has a caption in each language: (B, N)."""
        return torch.tensor([[bool(c.get(name)) for name in self.languages] for c in captions])

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor | Ragged]:
        """Encodes a loader's batch.

        Returns:
            latent_mean, latent_std (B, 4, h, w); has_language (B, N), native (B,); caption_states,
            the concatenated states of each sample's first caption per language
            (`TextEncoder.encode_packed`), and caption_lengths (B, N), 0 without a caption.
        """
        captions = batch["captions"]
        texts = [c[name][0] for c in captions for name in self.languages if c.get(name)]
        states = self.encoder.encode_packed(texts).to("cpu", STORED)
        lengths = torch.zeros(len(captions), len(self.languages), dtype=torch.int64)
        lengths[self.has_language(captions)] = states.lengths
        return {
            **self.latents(batch["images"]),
            "has_language": self.has_language(captions),
            "native": ~batch["parallel"],
            STATES: Ragged(states.values, lengths.sum(dim=1)),
            LENGTHS: lengths,
        }

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt: caption_states (M, D)."""
        states = self.encoder.encode_packed([""]).to("cpu", STORED)
        return {STATES: unpack(states, self.encoder.max_length)[0]}


def trained_encoder(settings: TrainSettings) -> TextEncoder:
    """Loads the trained text encoder that the settings name."""
    return load_text_encoder(
        settings.text_encoder, settings.text_encoder_revision, settings.max_length
    )


@dataclass
class CaptionData:
    """Batches, and the states of the captions drawn from them.

    Attributes:
        data: training data from features or shards.
        parts: the frozen parts.
        null: the empty prompt's states (M, D).
    """

    data: TrainingData
    parts: FrozenParts
    null: Tensor

    def batches(self, start: int) -> Iterator[dict[str, Any]]:
        """Yields endless batches, starting at a micro-step: `latent_mean`, `latent_std`,
        `has_language`, `native`, and the inputs of `states`.
        """
        if isinstance(self.data.loader, FeatureLoader):
            yield from self.data.loader.batches(start)
        for batch in self.data.loader.batches(start):
            yield {
                **self.parts.latents(batch["images"]),
                "has_language": self.parts.has_language(batch["captions"]),
                "native": ~batch["parallel"],
                "captions": batch["captions"],
                "keys": batch["keys"],
            }

    def states(self, batch: dict[str, Any], chosen_B: Tensor) -> Tensor:
        """The UNet's text input for the captions in the chosen languages: (B, M, D), fp32."""
        if "captions" not in batch:
            return chosen_states(batch, chosen_B, len(self.null)).float()
        names = self.parts.languages
        pairs = zip(batch["captions"], chosen_B.tolist(), strict=True)
        texts = [captions[names[place]][0] for captions, place in pairs]
        states = self.parts.encoder.encode_packed(texts).to("cpu", STORED)
        return unpack(states, len(self.null)).float()

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """The sample keys of a batch, for messages."""
        return self.data.keys(batch)


def chosen_states(batch: dict[str, Any], chosen_B: Tensor, max_length: int) -> Tensor:
    """The states of one caption per row of features, as the UNet takes them: (B, M, D)."""
    packed, lengths_BN = batch[STATES], batch[LENGTHS]
    flat = lengths_BN.flatten()
    place_B = torch.arange(len(chosen_B)) * lengths_BN.shape[1] + chosen_B
    return unpack(Ragged(packed.values, flat).select(place_B), max_length)


def open_data(settings: TrainSettings, ranks: Ranks) -> CaptionData:
    """Opens `train_data`, features or shards.

    Raises:
        FileNotFoundError, ValueError: there is no data, or its features were made by other parts.
    """
    parts = FrozenParts(settings, ranks.device)
    data = open_run_data(settings, parts, ranks)
    return CaptionData(data, parts, data.null[STATES].float())
