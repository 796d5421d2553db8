"""What IAP trains on: latents, English states, token ids of target captions, and, if wanted, the
queries of English passes.

The encoder trains, so its states cannot be kept; its ids can. The English branch is frozen from end
to end, so each layer's queries, which are all that the target branch needs of it, can be kept too.
"""

import hashlib
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from crosslingual.features.frozen_parts import STORED, FrozenParts
from crosslingual.features.loader import FeatureLoader, check_fresh
from crosslingual.frozen.base import Base, Conditioning
from crosslingual.frozen.encoders import encoder_shape
from crosslingual.frozen.schedule import Noising
from crosslingual.frozen.weights import locate, resolve
from crosslingual.training.processes import Ranks
from iap.method import AttentiveFeatures
from iap.settings import TrainSettings

TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.bpe.model", "tokenizer_config.json")


@dataclass
class TripletParts:
    """The frozen parts that triplets of picture, English and target captions pass through once;
    each is loaded when it is first needed.

    Attributes:
        base: the diffusion base, for its VAE, its English text encoder and its UNet.
        encoder: id of the encoder whose tokenizer reads the target captions.
        languages: of the target captions, in the order of their axis.
        max_length: tokens of a target caption.
        resolution: edge of the pictures in pixels.
        encoder_revision: of the encoder's hub entry.
        english_draws: noisy latents of a picture whose English pass is run, 0 for none.
        query_positions: positions of a layer that are kept of each; all if None.
        noise_offset: of those latents.
        device: where the frozen parts run.
    """

    base: Base
    encoder: str
    languages: list[str]
    max_length: int
    resolution: int
    encoder_revision: str | None = None
    english_draws: int = 0
    query_positions: int | None = None
    noise_offset: float = 0.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def frozen(self) -> FrozenParts:
        """VAE and English text encoder."""
        return FrozenParts(self.base, None, self.languages, device=self.device)

    @cached_property
    def english_pass(self) -> tuple[AttentiveFeatures, Noising]:
        """The UNet with all its cross-attentions kept, and its noise schedule."""
        denoiser = self.base.load_denoiser(self.device, resolution=self.resolution)
        noising = self.base.schedule(device=self.device, noise_offset=self.noise_offset)
        attentions = [attention for _, attention in denoiser.cross_attentions()]

        def predict(latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
            return denoiser.predict(latents, timesteps, Conditioning(states))

        return AttentiveFeatures(predict, attentions), noising

    @cached_property
    def tokenizer(self) -> Any:
        """The target encoder's; pads on the right to `max_length`."""
        return load_tokenizer(self.encoder, self.encoder_revision, self.max_length)

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What the arrays depend on; no model is loaded for it."""
        made_of = {
            **self.frozen.made_of,
            "tokenizer": self.encoder,
            "tokenizer_revision": self.encoder_revision,
            "tokenizer_files": tokenizer_hash(self.encoder),
            "max_length": self.max_length,
        }
        if not self.english_draws:  # features with queries serve a run without kept ones too
            return made_of
        return {
            **made_of,
            "english_draws": self.english_draws,
            "query_positions": self.query_positions,
            "noise_offset": self.noise_offset,
            "unet_weights": self.base.weights_hash("denoiser"),
        }

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids (B, max_length) int32; longer texts are cut with their end token kept."""
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=self.max_length, truncation=True
        )
        return torch.tensor(tokens.input_ids, dtype=torch.int32)

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Arrays of a loader's batch of B samples in N languages.

        Returns:
            Those of `FrozenParts.encode`; `target_ids` (B, N, max_length) of the first caption in
            each language; with `english_draws`, `queries_0` and so on, (B, draws, P, W) of each
            cross-attention.
        """
        captions = batch["captions"]
        texts = [(c.get(name) or [""])[0] for c in captions for name in self.languages]
        ids = self.ids(texts).unflatten(0, (len(captions), len(self.languages)))
        arrays = {**self.frozen.encode(batch), "target_ids": ids}
        return arrays | (self.queries(arrays, batch["keys"]) if self.english_draws else {})

    @torch.no_grad()
    def queries(self, arrays: dict[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
        """The queries of English passes over noisy latents that a sample's key decides."""
        features, noising = self.english_pass
        english = arrays["english_states"].to(self.device, torch.float32)
        draws = []
        for draw in range(self.english_draws):
            seeds = (zlib.crc32(f"{key} {draw}".encode()) for key in keys)
            rows = [torch.Generator().manual_seed(seed) for seed in seeds]
            noisy = noising.draw(arrays, rows)
            features.run(noisy.latents, noisy.timesteps, english, stop_early=True)
            draws.append([self._some_positions(q, rows) for q in features.queries])
        return {
            f"queries_{n}": torch.stack(q, dim=1) for n, q in enumerate(zip(*draws, strict=True))
        }

    def _some_positions(self, query: Tensor, rows: list[torch.Generator]) -> Tensor:
        """Queries (B, H, P, W / H) as they are stored, (B, P', W)."""
        stored = query.transpose(1, 2).flatten(2).to("cpu", STORED)
        num_positions = stored.shape[1]
        if self.query_positions is None or self.query_positions >= num_positions:
            return stored
        kept = [torch.randperm(num_positions, generator=row) for row in rows]
        places = torch.stack(kept)[:, : self.query_positions]
        return stored.gather(1, places[..., None].expand(-1, -1, stored.shape[2]))

    def null(self) -> dict[str, Tensor]:
        """The empty prompt: `english_states` (M, D) and `target_ids` (max_length,)."""
        return {**self.frozen.null(), "target_ids": self.ids([""])[0]}


def load_tokenizer(name: str, revision: str | None, max_length: int) -> Any:
    """An encoder's tokenizer as IAP reads captions with it, which is also how a pipeline does."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(name), revision=revision)
    tokenizer.padding_side, tokenizer.model_max_length = "right", max_length
    return tokenizer


def tokenizer_hash(name: str) -> str | None:
    """Identifies a tokenizer on this disk by its files; None for a hub id."""
    folder = Path(resolve(name))
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in (folder / file for file in TOKENIZER_FILES):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def triplet_parts(settings: TrainSettings, ranks: Ranks) -> TripletParts:
    """The parts whose outputs IAP trains on.

    Raises:
        ValueError: no target language is named.
    """
    if not settings.target_language:
        raise ValueError(
            "target_language is not set: name the languages whose captions train, such as "
            "--target_language zh"
        )
    encoder, revision = settings.text_encoder, settings.text_encoder_revision
    return TripletParts(
        Base.open(locate(settings.pretrained_model_name_or_path), settings.revision),
        locate(encoder),
        settings.target_language,
        settings.max_length or encoder_shape(encoder, revision)[1],
        settings.resolution,
        revision,
        settings.english_draws,
        settings.query_positions,
        settings.noise_offset,
        ranks.device,
    )


def validation_batch(settings: TrainSettings, parts: TripletParts) -> dict[str, Tensor] | None:
    """The first rows of `validation_data`; None where nothing is validated.

    Raises:
        FileNotFoundError, ValueError: no features there, or they were made of other parts.
    """
    if not settings.validation_steps:
        return None
    loader = FeatureLoader(settings.validation_data, batch_size=1, seed=0)
    made_of = {**parts.made_of, "resolution": settings.resolution}
    check_fresh(loader.index, made_of, settings.validation_data)
    return loader.rows(torch.arange(min(settings.validation_rows, loader.index.num_rows)))
