"""What several of MuLan's tests use: Stable Diffusion, SDXL, PixArt and XLM-R in miniature with
random weights, shards and features of random pictures, and `mulan` in forked processes.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import (
    PixArtTransformer2DModel,
)
from PIL import Image
from transformers import (
    T5Config,
    T5EncoderModel,
)

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual_worlds.testing.miniatures import (
    MAX_TOKENS,
    RESOLUTION,
    clip_tokenizer,
    fill,
    write_base,
    write_encoder,
    write_sd,
    write_sdxl,
)
from crosslingual_worlds.testing.processes import forked_runs, words_of

MuLan = Callable[..., dict[str, Any]]

NUM_QUERIES = MAX_TOKENS  # as many as the English encoder has, so that states can be compared


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Stable Diffusion base's folder."""
    return write_sd(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SDXL base's folder: pooled vectors of width 20."""
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PixArt base's folder, with a T5 of width 8; pictures of 256 x 256 where nobody asks for
    smaller ones.
    """
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        sample_size=32,
        caption_channels=8,
    )
    t5 = T5Config(vocab_size=514, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return write_base(
        tmp_path_factory.mktemp("pixart"),
        "PixArtAlphaPipeline",
        transformer=("diffusers", fill(transformer)),
        text_encoder=("transformers", fill(T5EncoderModel(t5))),
        tokenizer=("transformers", clip_tokenizer()),
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A multilingual encoder's folder: an XLM-R of width 12 whose pieces are letters."""
    return write_encoder(
        tmp_path_factory.mktemp("encoder"),
        max_positions=130,  # PixArt's pipeline pads to 120
    )


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 random pictures captioned in English, German and French, all parallel."""
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        pixels, picture = random.integers(0, 256, (RESOLUTION, RESOLUTION, 3)), io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(picture, "PNG")
        texts = {"en": "house {}", "de": "ein Haus {}", "fr": "maison {}"}
        captions = {language: [text.format(number)] for language, text in texts.items()}
        return Record(f"{number:05d}", picture.getvalue(), captions, parallel=True)

    folder = tmp_path_factory.mktemp("shards")
    write_shards(map(record, range(24)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def mulan() -> Iterator[MuLan]:
    """Runs the command in forked processes: `mulan("train", output_dir=..., max_train_steps=6)`.

    The answer holds `codes` and `stderr`, a value a rank; see
    `crosslingual_worlds.testing.processes.serve_verbs` for `world_size`, `terminate`, `die`.
    """
    with forked_runs(Path(__file__).with_name("fork_server.py")) as ask:
        yield lambda verb, faults=None, **settings: ask(
            {"argv": words_of(verb, settings), **(faults or {})}
        )


@pytest.fixture(scope="session")
def parts(sd: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": encoder,
        "languages": ["en"],
        "num_queries": NUM_QUERIES,
        "num_heads": 2,
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def features(
    mulan: MuLan, parts: dict[str, Any], shards: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The features of `shards`, by `mulan features`."""
    folder = tmp_path_factory.mktemp("features")
    answer = mulan("features", shards=shards, features_dir=folder, encode_batch_size=8, **parts)
    assert answer["codes"] == [0], answer["stderr"]
    return str(folder)


@pytest.fixture(scope="session")
def recipe(parts: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of a short training run on `features`: an adapter of width 16."""
    return {
        **parts,
        "train_data": features,
        "train_batch_size": 4,
        "max_train_steps": 6,
        "learning_rate": 1e-2,
        "lr_warmup_steps": 1,
        "checkpointing_steps": 2,
        "caption_dropout": 0.2,
    }
