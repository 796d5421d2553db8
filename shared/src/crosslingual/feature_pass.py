"""The pass over shards that computes features, and the same computation online, batch by batch.

`FrozenParts.encode` is the one place where a batch of pictures and captions becomes arrays;
`compute_features` stores what it returns and `online_batches` hands it straight on, so that
training on shards and on features sees the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.encoders import (
    MultilingualEncoder,
    encode_english,
    load_multilingual_encoder,
    load_pipeline,
    load_vae,
)
from crosslingual.features import NULL, claim, save_block
from crosslingual.loader import ShardLoader
from crosslingual.shards import read_index as read_shard_index

STORED = torch.float16


@dataclass
class FrozenParts:
    """The frozen parts that a generating method's samples pass through once.

    Attributes:
        base: id of the diffusion base, for its VAE and its own text encoder.
        encoder: id of the multilingual encoder, or None where the method needs no states of it.
        languages: whose captions are encoded, in the order of the language axis.
        max_length: tokens of the multilingual states; the tokenizer's own limit if None.
        revision, encoder_revision: of the hub entries.
        device: where the frozen parts run.
    """

    base: str
    encoder: str | None
    languages: list[str]
    max_length: int | None = None
    revision: str | None = None
    encoder_revision: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        """Loads the parts."""
        self.vae = load_vae(self.base, self.revision).to(self.device)
        self.english: Any = load_pipeline(self.base, self.revision, unet=None, vae=None).to(
            self.device
        )
        self.multilingual: MultilingualEncoder | None = None
        if self.encoder is not None:
            self.multilingual = load_multilingual_encoder(
                self.encoder, self.encoder_revision, self.max_length
            )
            self.multilingual.model.to(self.device)

    @property
    def made_of(self) -> dict[str, Any]:
        """What the arrays depend on, for the features' key."""
        return {
            "base": self.base,
            "revision": self.revision,
            "encoder": self.encoder,
            "encoder_revision": self.encoder_revision,
            "max_length": self.multilingual.max_length if self.multilingual else None,
            "languages": self.languages,
            "dtype": str(STORED).removeprefix("torch."),
        }

    @torch.no_grad()
    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Arrays of a loader's batch of B pictures with captions in N languages.

        Returns:
            latent_mean, latent_std (B, 4, h, w); english_states (B, L, D) and english_pooled (B, P)
            for SDXL, of the first English caption; multilingual_states (B, N, M, C) of the first
            caption in each language; has_english (B,), has_language (B, N), native (B,): not
            parallel, so without a teacher.
        """
        posterior = self.vae.encode(batch["images"].to(self.device)).latent_dist
        arrays = {"latent_mean": posterior.mean, "latent_std": posterior.std}
        captions = batch["captions"]
        arrays |= _named(
            "english", encode_english(self.english, [_first(c, "en") for c in captions])
        )
        arrays["has_english"] = torch.tensor([bool(c.get("en")) for c in captions])
        arrays["has_language"] = torch.tensor(
            [[bool(c.get(name)) for name in self.languages] for c in captions]
        )
        arrays["native"] = ~batch["parallel"]
        if self.multilingual is not None:
            texts = [_first(c, name) for c in captions for name in self.languages]
            states, _ = self.multilingual.encode(texts)
            arrays["multilingual_states"] = states.unflatten(
                0, (len(captions), len(self.languages))
            )
        return {
            name: array.to("cpu", STORED if array.is_floating_point() else None)
            for name, array in arrays.items()
        }

    def null(self) -> dict[str, Tensor]:
        """The states of the empty prompt: english_states (L, D), english_pooled (P,),
        multilingual_states (M, C).
        """
        arrays = _named("english", encode_english(self.english, [""]))
        if self.multilingual is not None:
            arrays["multilingual_states"] = self.multilingual.encode([""])[0]
        return {name: array[0].to("cpu", STORED) for name, array in arrays.items()}


def _first(captions: dict[str, list[str]], language: str) -> str:
    texts = captions.get(language)
    return texts[0] if texts else ""


def _named(prefix: str, encoded: tuple[Tensor, Tensor | None]) -> dict[str, Tensor]:
    states, pooled = encoded
    return {f"{prefix}_states": states} | ({} if pooled is None else {f"{prefix}_pooled": pooled})


def compute_features(
    parts: FrozenParts,
    shards: str,
    output_dir: str | Path,
    *,
    resolution: int,
    batch_size: int = 32,
    batches_per_block: int = 16,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    key_map: Mapping[str, str] | None = None,
) -> Path:
    """Writes the features of all samples of `shards`; ranks share the blocks, and complete blocks
    are kept.

    Once all ranks are through, `finish_features` completes the folder.

    Args:
        parts: what the samples pass through.
        shards: as `crosslingual.shards.expand_shards` takes them.
        output_dir: the features' folder.
        resolution: of the pictures.
        batch_size: pictures at a time.
        batches_per_block: batches a file.
        num_workers: processes that decode.
        rank: this process.
        world_size: processes.
        key_map: JSON key to language, for captions of others' shards.

    Raises:
        ValueError: the folder holds features of something else.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    made_of = {
        **parts.made_of,
        "resolution": resolution,
        "shards": shards_hash(shards),
        "batch_size": batch_size,
    }
    claim(folder, made_of)
    loader = ShardLoader(
        shards,
        batch_size=batch_size,
        seed=0,
        resolution=resolution,
        num_workers=num_workers,
        shuffle=False,
        key_map=key_map,
    )
    for number in range(rank, -(-len(loader) // batches_per_block), world_size):
        path = folder / f"block-{number:05d}.safetensors"
        if path.exists():
            continue
        first = number * batches_per_block
        pieces, keys = [], []
        for batch in islice(loader.batches(first), min(batches_per_block, len(loader) - first)):
            pieces.append(parts.encode(batch))
            keys += batch["keys"]
        save_block(
            path, {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}, keys
        )
    if rank == 0:
        save_block(folder / NULL, parts.null(), [])
    return folder


def shards_hash(shards: str) -> str:
    """The hash that the shards' own index gives them; their names where they have no index (shards
    of others).
    """
    folder = Path(shards)
    if (folder / "index.json").is_file():
        return str(read_shard_index(folder)["sha256"])
    return shards


def online_batches(
    parts: FrozenParts, loader: ShardLoader, start_step: int = 0
) -> Iterator[dict[str, Tensor]]:
    """What `FeatureLoader.batches` yields, computed from pictures and captions as they come."""
    for batch in loader.batches(start_step):
        yield {**parts.encode(batch), "keys": batch["keys"]}
