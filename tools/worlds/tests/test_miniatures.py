"""The miniatures that methods test with are read by the code that reads the real models."""

from pathlib import Path

import pytest
import torch

from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.frozen.weights import weights_hash
from crosslingual_worlds.testing.miniatures import (
    MAX_TOKENS,
    write_encoder,
    write_pixart,
    write_sd,
    write_sdxl,
)


@pytest.mark.parametrize(
    ("write", "width", "pooled"),
    [(write_sd, 16, None), (write_sdxl, 32, (2, 20)), (write_pixart, 8, None)],
)
def test_a_base_is_loaded_strictly_and_encodes_english(
    tmp_path: Path, write, width: int, pooled: tuple[int, int] | None
) -> None:
    base = Base.open(write(tmp_path))
    told = base.load_text(torch.device("cpu")).encode(["a house", "a tree"])
    assert told.states.shape[0] == 2 and told.states.shape[2] == width == base.text.width
    assert base.family.name == "pixart" or told.states.shape[1] == MAX_TOKENS
    assert (None if told.pooled is None else tuple(told.pooled.shape)) == pooled


def test_weights_are_the_same_wherever_they_are_made(tmp_path: Path) -> None:
    parts = ("unet", "vae", "text_encoder")
    hashes = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        hashes.add(weights_hash(write_sd(tmp_path / name), parts))
    assert len(hashes) == 1


def test_an_encoder_reads_other_scripts_letter_by_letter(tmp_path: Path) -> None:
    encoder = load_multilingual_encoder(write_encoder(tmp_path))
    states, mask = encoder.encode(["ein Haus", "一丁"])
    assert states.shape == (2, MAX_TOKENS, encoder.width)
    assert encoder.tokenizer.unk_token_id not in encoder.tokenizer("ein Haus 一丁").input_ids
    assert mask.sum(dim=1).tolist() == [2 + 9, 2 + 3]
