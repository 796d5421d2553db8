"""What several of mCLIP's tests use: a CLIP and an XLM-R in miniature with random weights, shards
and features of random pictures, and `mclip` in forked processes.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual_worlds.testing.processes import forked_runs, words_of

Mclip = Callable[..., dict[str, Any]]

IMAGE_SIZE, RESOLUTION, MAX_TOKENS = 32, 36, 16
CLIP_WIDTH, ENCODER_WIDTH = 10, 12
NUM_SAMPLES = 24


def fill(module: nn.Module) -> nn.Module:
    """Weights from each parameter's name alone, so that no library's initialisation matters."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                scale = parameter[0].numel() ** -0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP's folder: pictures of 32 x 32, a joint space of width 10, letters as tokens."""
    folder = tmp_path_factory.mktemp("clip")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{c}</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=MAX_TOKENS)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2}
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = CLIPConfig(
        text_config={**tower, **ends, "vocab_size": 514, "max_position_embeddings": MAX_TOKENS},
        vision_config={**tower, "image_size": IMAGE_SIZE, "patch_size": 16},
        projection_dim=CLIP_WIDTH,
    )
    fill(CLIPModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A multilingual encoder's folder: an XLM-R of width 12 whose pieces are letters."""
    folder = tmp_path_factory.mktemp("encoder")
    letters = [chr(c) for c in (*range(33, 127), *range(161, 384), *range(0x4E00, 0x4E40))]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters]
    tokenizer = XLMRobertaTokenizer(
        vocab=[(piece, 0.0 if len(piece) > 2 else -5.0) for piece in pieces],
        model_max_length=MAX_TOKENS,
    )
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=ENCODER_WIDTH,
        intermediate_size=ENCODER_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
    )
    fill(XLMRobertaModel(config, add_pooling_layer=False)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 pictures of four random colours, each with a letter of its own for a caption in German;
    three of four also in English, every other one in French.
    """
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        colours, picture = random.integers(0, 256, (2, 2, 3), dtype=np.uint8), io.BytesIO()
        Image.fromarray(colours.repeat(20, axis=0).repeat(20, axis=1)).save(picture, "PNG")
        letter = chr(ord("A") + number)
        captions = {"de": [letter * (1 + number % 3)]}
        if number % 4:
            captions["en"] = [f"a{letter}"]
        if number % 2:
            captions["fr"] = [letter.lower()]
        return Record(f"{number:05d}", picture.getvalue(), captions, parallel=True)

    folder = tmp_path_factory.mktemp("shards")
    write_shards(map(record, range(NUM_SAMPLES)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def mclip() -> Iterator[Mclip]:
    """Runs the command in forked processes: `mclip("train", output_dir=..., max_train_steps=6)`.

    The answer holds `codes`, `stdout` and `stderr`, a value a rank; see
    `crosslingual_worlds.testing.processes.serve_verbs` for what a second argument may hold.
    """
    with forked_runs(Path(__file__).with_name("fork_server.py")) as ask:
        yield lambda verb, faults=None, **settings: ask(
            {"argv": words_of(verb, settings), **(faults or {})}
        )


@pytest.fixture(scope="session")
def parts(clip: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    languages = ["en", "de", "fr"]
    return {
        "clip": clip,
        "text_encoder": encoder,
        "languages": languages,
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def features(
    mclip: Mclip, parts: dict[str, Any], shards: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The features of `shards`, by `mclip features`."""
    folder = tmp_path_factory.mktemp("features")
    answer = mclip("features", shards=shards, features_dir=folder, encode_batch_size=1, **parts)
    assert answer["codes"] == [0], answer["stderr"]
    return str(folder)


@pytest.fixture(scope="session")
def recipe(parts: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of a short training run on `features`, with dropout."""
    return {
        **parts,
        "train_data": features,
        "num_heads": 2,
        "ffn_width": 16,
        "dropout": 0.1,
        "chunk_rows": 3,
        "train_batch_size": 8,
        "max_train_steps": 6,
        "learning_rate": 1e-2,
        "lr_warmup_steps": 1,
        "checkpointing_steps": 2,
    }
