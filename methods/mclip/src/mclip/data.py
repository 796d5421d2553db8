"""What TriKD trains on: batches of the frozen parts' outputs, from features or from shards.

A batch holds one caption per picture, in a language drawn from those that the picture has. From
features only the states of the drawn captions are read; from shards only the drawn captions are
encoded. Which captions they are does not depend on where they come from or on how many ranks share
the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import Tensor

from crosslingual.data.loader import ShardLoader
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.ragged import Ragged, concatenate
from crosslingual.features.training_data import open_run_data
from crosslingual.frozen.clip import FrozenCLIP, clip_shape, load_clip
from crosslingual.frozen.encoders import (
    MultilingualEncoder,
    encoder_shape,
    load_multilingual_encoder,
)
from crosslingual.frozen.weights import locate, weights_hash
from crosslingual.training.processes import Ranks
from crosslingual.training.rehearsal import rehearse
from mclip.settings import TrainSettings

STORED = torch.float16


@dataclass
class RetrievalParts:
    """The frozen CLIP and the frozen multilingual encoder. Each is loaded when it is first needed:
    training from features loads neither.

    Attributes:
        settings: they name the CLIP, the encoder, the languages and the captions' length.
        device: where the frozen parts run.
    """

    settings: TrainSettings
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def languages(self) -> list[str]:
        """The languages whose captions are encoded."""
        return self.settings.languages

    @cached_property
    def clip(self) -> FrozenCLIP:
        """The CLIP."""
        loaded = load_clip(self.settings.clip, self.settings.clip_revision)
        loaded.model.to(self.device)
        return loaded

    @cached_property
    def encoder(self) -> MultilingualEncoder:
        """The multilingual encoder."""
        name, revision = self.settings.text_encoder, self.settings.text_encoder_revision
        loaded = load_multilingual_encoder(name, revision, self.settings.max_length)
        loaded.model.to(self.device)
        return loaded

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What the arrays depend on, for the features' key; no model is loaded for it."""
        clip, clip_revision = locate(self.settings.clip), self.settings.clip_revision
        encoder = locate(self.settings.text_encoder)
        revision = self.settings.text_encoder_revision
        return {
            "clip": clip,
            "clip_revision": clip_revision,
            "clip_weights": weights_hash(clip),
            "clip_image_size": clip_shape(clip, clip_revision)[1],
            "encoder": encoder,
            "encoder_revision": revision,
            "encoder_weights": weights_hash(encoder),
            "max_length": self.settings.max_length or encoder_shape(encoder, revision)[1],
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

        def first(language: str) -> list[str]:
            return [(c.get(language) or [""])[0] for c in batch["captions"]]

        return {
            "image_embeds": self.embed_images(batch["images"]),
            "text_embeds": self.embed_english(first("en")),
            "has_english": torch.tensor([bool(c.get("en")) for c in batch["captions"]]),
            "has_language": self.has_language(batch["captions"]),
            **{f"states_{name}": self.caption_states(first(name)) for name in self.languages},
        }

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """CLIP's embeddings of pictures (B, 3, H, W) in [-1, 1], as stored: (B, P)."""
        return self.clip.encode_images(images.to(self.device)).to("cpu", STORED)

    @torch.no_grad()
    def embed_english(self, texts: list[str]) -> Tensor:
        """CLIP's embeddings of English texts, as stored, zeros for empty ones: (B, P)."""
        embeds = torch.zeros(len(texts), self.clip.width, dtype=STORED)
        if there := [place for place, text in enumerate(texts) if text]:
            found = self.clip.encode_texts([texts[place] for place in there])
            embeds[there] = found.to("cpu", STORED)
        return embeds

    @torch.no_grad()
    def caption_states(self, texts: list[str]) -> Ragged:
        """The encoder's token states of captions, as stored, of length 0 for empty ones."""
        lengths = torch.zeros(len(texts), dtype=torch.long)
        values = torch.zeros(0, self.encoder.width, dtype=STORED)
        if there := [place for place, text in enumerate(texts) if text]:
            found = self.encoder.encode_packed([texts[place] for place in there])
            values, lengths[there] = found.values.to("cpu", STORED), found.lengths.cpu()
        return Ragged(values, lengths)

    def null(self) -> dict[str, Tensor]:
        """Nothing: TriKD has no empty prompt."""
        return {}


@dataclass
class TriKDData:
    """Batches for TriKD.

    Attributes:
        loader: of features or of shards.
        parts: the frozen parts that the samples pass, or passed, through.
        seed: seed of the drawn languages.
        ranks: this process among the others.
        rehearsed: which of the languages are rehearsed; None where all count alike.
        share: of the captions that are rehearsal.
    """

    loader: FeatureLoader | ShardLoader
    parts: RetrievalParts
    seed: int
    ranks: Ranks
    rehearsed: Sequence[bool] | None = None
    share: float = 0.0

    def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Endless batches of B rows from a micro-step on.

        Yields:
            image_embeds, text_embeds (B, P); is_english (B,), whether the drawn caption is English;
            states (T, D), its token states, one caption after another, and lengths (B,), all as
            stored; `rows` or `keys`, for `keys`. Rows of one language stand together.
        """
        if isinstance(self.loader, FeatureLoader):
            for step in count(start_step):
                yield self._read(self.loader, step)
        for step, batch in enumerate(self.loader.batches(start_step), start_step):
            yield self._encode(batch, step)

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """The sample keys of a batch, for messages."""
        return self.loader.keys(batch["rows"]) if "rows" in batch else batch["keys"]

    def _draw(self, has_language_BN: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The order of rows that groups them by language, and each one's language in that order."""
        chosen_B = draw_languages(
            has_language_BN, self.seed, step, self.ranks, self.rehearsed, self.share
        )
        order_B = chosen_B.argsort(stable=True)
        return order_B, chosen_B[order_B]

    def _read(self, loader: FeatureLoader, step: int) -> dict[str, Any]:
        rows_B = loader.indices(step)
        has_language_BN = loader.rows(rows_B, ["has_language"])["has_language"]
        order_B, chosen_B = self._draw(has_language_BN, step)
        rows_B = rows_B[order_B]
        parts = []
        for number in chosen_B.unique().tolist():
            name = f"states_{self.parts.languages[number]}"
            parts.append(loader.rows(rows_B[chosen_B == number], [name])[name])
        states = concatenate(parts)
        return {
            **loader.rows(rows_B, ["image_embeds", "text_embeds"]),
            "is_english": self._is_english(chosen_B),
            "states": states.values,
            "lengths": states.lengths,
            "rows": rows_B,
        }

    def _encode(self, batch: dict[str, Any], step: int) -> dict[str, Any]:
        captions = batch["captions"]
        order_B, chosen_B = self._draw(self.parts.has_language(captions), step)
        names = [self.parts.languages[number] for number in chosen_B.tolist()]
        order = order_B.tolist()
        texts = [captions[row][name][0] for row, name in zip(order, names, strict=True)]
        english = [text if name == "en" else "" for text, name in zip(texts, names, strict=True)]
        states = self.parts.caption_states(texts)
        return {
            "image_embeds": self.parts.embed_images(batch["images"][order_B]),
            "text_embeds": self.parts.embed_english(english),
            "is_english": self._is_english(chosen_B),
            "states": states.values,
            "lengths": states.lengths,
            "keys": [batch["keys"][row] for row in order],
        }

    def _is_english(self, chosen_B: Tensor) -> Tensor:
        languages = self.parts.languages
        return chosen_B == (languages.index("en") if "en" in languages else -1)


def draw_languages(
    has_language_BN: Tensor,
    seed: int,
    step: int,
    ranks: Ranks,
    rehearsed: Sequence[bool] | None = None,
    share: float = 0.0,
) -> Tensor:
    """One language per row, drawn evenly from those that it has: (B,). With `rehearsed`, which of
    the languages are rehearsed, it is one of these with the chance `share`, or else another.

    It is a function of the seed, the micro-step and the row's place in the batch of all ranks.

    Raises:
        ValueError: a row has no language.
    """
    num_rows = len(has_language_BN)
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**32)

    def draw() -> Tensor:
        drawn = torch.rand(num_rows * ranks.world_size, generator=generator, dtype=torch.float64)
        return drawn[ranks.rank * num_rows :][:num_rows]

    drawn_B = draw()
    if rehearsed is not None:
        has_language_BN = rehearse(has_language_BN, torch.tensor(rehearsed), draw() < share)
    counts_B = has_language_BN.sum(dim=1)
    if not bool((counts_B > 0).all()):
        raise ValueError(
            "a sample has no caption in any language that trains: choose others by --languages"
        )
    wanted_B = (drawn_B * counts_B).long()
    return (has_language_BN.cumsum(dim=1) > wanted_B[:, None]).int().argmax(dim=1)


def open_data(settings: TrainSettings, ranks: Ranks) -> TriKDData:
    """Opens `train_data`, features or shards.

    Raises:
        FileNotFoundError, ValueError: nothing there, or features that were made of other parts.
    """
    rehearsed = settings.rehearsed(settings.languages)
    parts = RetrievalParts(settings, ranks.device)
    opened = open_run_data(settings, parts, ranks)
    share = settings.rehearsal or 0.0
    return TriKDData(opened.loader, parts, settings.seed, ranks, rehearsed, share)
