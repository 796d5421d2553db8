"""A pass over the frozen parts that generating methods share: `features` against bare passes.

- features: what `pea features` does with its parts loaded: it reads shards, decodes, tokenises,
  passes the frozen parts, and writes blocks with their hashes.
- bare: the VAE's encoder and both text encoders on the same inputs, ready in memory; nothing else.

A step is a pass over as many samples as the batch size says.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from cases import Arm, Case, Ratio, Setup, Step
from crosslingual.features.compute import open_shards, write_run_features
from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.frozen.base import Base
from crosslingual.training.processes import start_processes
from crosslingual.training.settings import DiffusionSettings, FeaturesSettings


@dataclass
class Settings(FeaturesSettings, DiffusionSettings):
    """What a method's `features` verb takes."""


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Writes shards."""
    setup.write_shards(["en", "de"], num_samples=setup.batch_size)
    return {"features": features, "bare": bare}


def _open(setup: Setup) -> tuple[Settings, FrozenParts]:
    shards = str(setup.folder / "shards")
    settings = Settings(shards=shards, resolution=setup.resolution)
    return settings, FrozenParts(Base.open(setup.base), setup.text_encoder, ["de"])


def features(setup: Setup) -> Step:
    """The verb, into a new folder at each step."""
    (settings, parts), ranks = _open(setup), start_processes()

    def step() -> None:
        with tempfile.TemporaryDirectory(dir=setup.folder) as folder:
            write_run_features(replace(settings, features_dir=folder), parts, ranks)

    return step


@torch.no_grad()
def bare(setup: Setup) -> Step:
    """The three models on tensors, in the verb's batches."""
    settings, parts = _open(setup)
    english, multilingual = parts.english.pipe, parts.multilingual
    size = {"batch_size": settings.encode_batch_size, "seed": 0, "shuffle": False}
    loader = open_shards(settings, settings.shards, parts, True, **size)
    inputs = []
    for _, batch in zip(range(len(loader)), loader.batches(), strict=False):
        texts = {n: [c[n][0] for c in batch["captions"]] for n in ("en", "de")}
        padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        ids = english.tokenizer(texts["en"], **padded).input_ids
        inputs.append((batch["images"], ids, multilingual.tokenize(texts["de"])))

    @torch.no_grad()
    def step() -> None:
        for images, english_ids, (ids, mask) in inputs:
            parts.vae.encode(images)
            english.text_encoder(english_ids)
            multilingual.model(ids, attention_mask=mask)

    return step


CASE = Case(
    prepare,
    [Ratio("samples/s, features / bare passes", "bare", "features", ">= 0.9")],
    batch_size=512,
    num_steps=4,
)
