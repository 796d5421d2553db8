"""Which arrays the frozen parts make of a batch, and that features of other arrays are others."""

import pytest
import torch

from crosslingual.features.frozen_parts import (
    FrozenParts,
    draw_generators,
    english_text,
    placed,
)
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder

BATCH = {
    "images": None,
    "captions": [{"en": ["a red star"], "de": ["ein roter Stern"]}, {"en": ["a ring"]}],
    "parallel": torch.tensor([True, False]),
}


def parts(**changes: bool) -> FrozenParts:
    return FrozenParts(Base.open("testbed:sd"), "testbed:xlm-r", ["en", "de"], **changes)


def test_english_states_are_left_out_where_nobody_wants_them() -> None:
    without = parts(with_english=False)
    arrays = without.encode(BATCH)
    assert set(arrays) == {"multilingual_states", "has_english", "has_language", "native"}
    assert set(without.null()) == {"multilingual_states"}
    assert "english" not in vars(without), "the English encoder was never loaded"
    whole = parts()
    assert set(whole.encode(BATCH)) == {*arrays, "english_states"}
    assert set(whole.null()) == {"multilingual_states", "english_states"}
    assert without.made_of == {**whole.made_of, "with_english": False}


def test_the_mask_tells_the_tokens_of_each_caption_from_padding() -> None:
    masked = parts(with_english=False, with_mask=True)
    mask, null = masked.encode(BATCH)["multilingual_mask"], masked.null()["multilingual_mask"]
    tokenizer = load_multilingual_encoder("testbed:xlm-r").tokenizer
    texts = ["a red star", "ein roter Stern", "a ring", ""]
    lengths = [len(tokenizer(text).input_ids) for text in texts]
    assert mask.dtype == torch.bool and mask.flatten(0, 1).sum(1).tolist() == lengths
    assert mask[:, :, 0].all() and null.sum() == len(tokenizer("").input_ids)
    assert masked.made_of == {**parts(with_english=False).made_of, "with_mask": True}


def test_equal_captions_and_absent_ones_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, read = parts(with_english=False, with_mask=True), []
    encode = whole.multilingual.encode
    monkeypatch.setattr(
        whole.multilingual, "encode", lambda texts: read.append(texts) or encode(texts)
    )
    captions = [{"de": ["ein Ring"]}, {"en": ["a ring"]}, {"en": ["a ring"]}]
    arrays = whole.encode({**BATCH, "captions": captions, "parallel": torch.ones(3).bool()})
    assert read == [["", "ein Ring", "a ring"]]
    states = encode(["", "ein Ring", "a ring", "", "a ring", ""])[0].unflatten(0, (3, 2))
    assert torch.equal(arrays["multilingual_states"], states.half())


def test_stored_arrays_are_read_in_fp32_and_absent_ones_stay_absent() -> None:
    states = torch.ones(2, 3, 4, dtype=torch.float16)
    device = torch.device("cpu")
    assert placed(torch.ones(2, dtype=torch.int32), device).dtype == torch.int32
    text = english_text({"english_states": states}, device)
    assert text.states.dtype == torch.float32
    assert text.pooled is None and text.mask is None


def test_a_sample_draws_by_its_key_and_the_number_of_the_draw() -> None:
    def first(key: str, draw: int) -> float:
        return torch.rand((), generator=draw_generators([key], draw)[0]).item()

    assert first("a", 0) == first("a", 0)
    assert len({first("a", 0), first("a", 1), first("b", 0)}) == 3
