"""What several of IAP's tests use: Stable Diffusion and XLM-R in miniature with random weights,
shards and features of random pictures, and `iap` in forked processes.
"""

import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from crosslingual.records import Record
from crosslingual.shards import write_shards
from crosslingual.testing import forked_runs, words_of

Iap = Callable[..., dict[str, Any]]

RESOLUTION, MAX_TOKENS, ENCODER_WIDTH = 32, 16, 12
SD_LAYOUT = {  # latents of 4 x 4
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def fill(module: nn.Module) -> nn.Module:
    """Weights from each parameter's name alone, so that no library's initialisation matters."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                scale = parameter[0].numel() ** -0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)


def clip_tokenizer() -> CLIPTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{c}</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=MAX_TOKENS)


def clip_text(model_class: type, **widths: int) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        **widths,
    )
    return fill(model_class(config))


def write_base(folder: Path, pipeline: str, unet: dict[str, Any], **parts: tuple[str, Any]) -> str:
    """A pipeline's folder; its VAE brings pictures of 32 x 32 to latents of 4 x 4."""
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        sample_size=RESOLUTION,
    )
    parts |= {
        "vae": ("diffusers", fill(vae)),
        "unet": ("diffusers", fill(UNet2DConditionModel(**unet))),
        "scheduler": ("diffusers", DDIMScheduler(clip_sample=False, steps_offset=1)),
    }
    for name, (_, part) in parts.items():
        part.save_pretrained(folder / name)
    index = {name: [library, type(part).__name__] for name, (library, part) in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **index}))
    return str(folder)


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Stable Diffusion base's folder."""
    return write_base(
        tmp_path_factory.mktemp("sd"),
        "StableDiffusionPipeline",
        SD_LAYOUT,
        text_encoder=("transformers", clip_text(CLIPTextModel)),
        tokenizer=("transformers", clip_tokenizer()),
    )


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
def iap() -> Iterator[Iap]:
    """Runs the command in forked processes: `iap("train", output_dir=..., max_train_steps=6)`.

    The answer holds `codes` and `stderr`, a value a rank; see
    `crosslingual.testing.serve_verbs` for `world_size`, `terminate`, `die`.
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
        "target_language": ["de", "fr"],
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def features(
    iap: Iap, parts: dict[str, Any], shards: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The features of `shards`, by `iap features`."""
    folder = tmp_path_factory.mktemp("features")
    answer = iap("features", shards=shards, features_dir=folder, encode_batch_size=8, **parts)
    assert answer["codes"] == [0], answer["stderr"]
    return str(folder)


@pytest.fixture(scope="session")
def recipe(parts: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of a short training run on `features`."""
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
