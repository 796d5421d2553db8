"""What TriKD trains on: batches of the frozen parts' outputs, from features or from shards.

A batch holds one caption a picture, in a language drawn from those that the picture has. From
features the states of the drawn captions alone are read, from shards they alone are encoded; which
they are does not depend on where they come from, nor on how many ranks share the batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import parse_key_map
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.ragged import concatenate
from crosslingual.features.training_data import open_training_data
from crosslingual.frozen.weights import locate
from crosslingual.training.processes import Ranks
from mclip.config import TrainSettings
from mclip.retrieval_parts import RetrievalParts


@dataclass
class TriKDData:
    """Batches for TriKD.

    Attributes:
        loader: of features or of shards.
        parts: what the samples pass, or passed, through.
        seed: of the drawn languages.
        ranks: this process among the others.
    """

    loader: FeatureLoader | ShardLoader
    parts: RetrievalParts
    seed: int
    ranks: Ranks

    def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Endless batches of B rows from a micro-step on.

        Yields:
            image_embeds, text_embeds (B, P); is_english (B,), whether the drawn caption is; states
            (T, D), its token states, one caption after another, and lengths (B,), all as stored;
            `rows` or `keys`, for `keys`. Rows of one language stand together.
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
        chosen_B = draw_languages(has_language_BN, self.seed, step, self.ranks)
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


def draw_languages(has_language_BN: Tensor, seed: int, step: int, ranks: Ranks) -> Tensor:
    """One language a row, drawn evenly from those that it has: (B,).

    A function of the seed, the micro-step and the row's place in the batch of all ranks.

    Raises:
        ValueError: a row has no language.
    """
    counts_B = has_language_BN.sum(dim=1)
    if not bool((counts_B > 0).all()):
        raise ValueError(
            "a sample has no caption in any language that trains: choose others by --languages"
        )
    num_rows = len(has_language_BN)
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**32)
    drawn = torch.rand(num_rows * ranks.world_size, generator=generator, dtype=torch.float64)
    wanted_B = (drawn[ranks.rank * num_rows :][:num_rows] * counts_B).long()
    return (has_language_BN.cumsum(dim=1) > wanted_B[:, None]).int().argmax(dim=1)


def key_map(settings: TrainSettings) -> dict[str, str] | None:
    """`caption_keys` as a mapping of JSON key to language, None where there are none."""
    return parse_key_map(settings.caption_keys) or None


def frozen_parts(settings: TrainSettings, device: torch.device) -> RetrievalParts:
    """The parts whose outputs TriKD trains on."""
    return RetrievalParts(
        locate(settings.clip),
        locate(settings.text_encoder),
        settings.languages,
        settings.max_length,
        settings.clip_revision,
        settings.text_encoder_revision,
        device,
    )


def open_data(settings: TrainSettings, ranks: Ranks) -> TriKDData:
    """Opens `train_data`, features or shards.

    Raises:
        FileNotFoundError, ValueError: nothing there, or features that were made of other parts.
    """
    parts = frozen_parts(settings, ranks.device)
    opened = open_training_data(
        settings.train_data,
        parts,
        resolution=settings.resolution,
        batch_size=settings.train_batch_size,
        seed=settings.seed,
        ranks=ranks,
        num_workers=settings.dataloader_num_workers,
        key_map=key_map(settings),
    )
    return TriKDData(opened.loader, parts, settings.seed, ranks)
