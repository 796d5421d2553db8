"""Arrays of varying rows: in memory, in features on disk, and out of an encoder."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.features.blocks import read_block
from crosslingual.features.compute import write_run_features
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.ragged import Ragged, concatenate
from crosslingual.features.training_data import TrainingData
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.training.processes import Ranks
from crosslingual.training.settings import CaptionSettings, FeaturesSettings


@dataclass
class Settings(FeaturesSettings, CaptionSettings):
    """Of a `features` verb on captions."""


TEXTS = ["a star", "十", "ein großer roter Stern über einem kleinen blauen Ring", "x y"]


class LetterParts:
    """Parts that make of a caption a row an English letter, and its length."""

    languages = ["en"]
    made_of = {"languages": ["en"]}

    def encode(self, batch: dict) -> dict:
        texts = [captions["en"][0] for captions in batch["captions"]]
        letters = torch.tensor([[ord(c), i] for i, text in enumerate(texts) for c in text])
        lengths = torch.tensor([len(text) for text in texts])
        return {"letters": Ragged(letters[:, :1].half(), lengths), "count": lengths}

    def null(self) -> dict:
        return {}


def text_of(row: torch.Tensor) -> str:
    return "".join(chr(int(value)) for value in row.flatten())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    captions = ["abcdefghij"[: 1 + number * 7 % 10] + str(number) for number in range(22)]
    write_shards((Record(t, None, {"en": [t]}, parallel=True) for t in captions), folder)
    return str(folder)


@pytest.fixture(scope="module")
def loader(shards: str, tmp_path_factory: pytest.TempPathFactory) -> FeatureLoader:
    """The features of 22 captions in blocks of 6."""
    folder = tmp_path_factory.mktemp("features")
    settings = Settings(shards=shards, features_dir=str(folder), encode_batch_size=3)
    ranks = Ranks(0, 1, 0, torch.device("cpu"))
    write_run_features(settings, LetterParts(), ranks, has_pictures=False, batches_per_block=2)
    return FeatureLoader(folder, batch_size=4, seed=0)


def test_rows_are_those_of_the_padded_form_in_any_order() -> None:
    lengths = torch.tensor([3, 1, 4, 2])
    values = torch.arange(20.0).reshape(10, 2)
    ragged = Ragged(values, lengths)
    chosen = ragged.select(torch.tensor([2, 0, 2]))
    expected = [values[4:8], values[0:3], values[4:8]]
    assert all(torch.equal(*pair) for pair in zip(chosen.rows(), expected, strict=True))
    both = concatenate([ragged, chosen])
    assert len(both) == 7
    assert torch.equal(both.values, torch.cat([values, *expected]))


def test_lengths_of_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 5 entries in all do not fit 4"):
        Ragged(torch.zeros(4, 2), torch.tensor([2, 3]))


def test_features_give_each_samples_own_row_whatever_the_blocks(loader: FeatureLoader) -> None:
    assert len(loader.index.blocks) == 4
    for indices in ([21, 0, 7, 6, 0, 13], [4, 3]):  # of four blocks, and of one
        batch = loader.rows(torch.tensor(indices))
        assert batch["letters"].values.dtype == torch.float16
        texts = [text_of(row) for row in batch["letters"].rows()]
        assert texts == loader.keys(torch.tensor(indices))
        assert batch["count"].tolist() == [len(text) for text in texts]


def test_only_the_named_arrays_are_read(loader: FeatureLoader) -> None:
    assert set(loader.rows(torch.tensor([3]), names=["count"])) == {"count"}
    with pytest.raises(ValueError, match="hold no pixels; there are count, letters"):
        loader.rows(torch.tensor([3]), names=["count", "pixels"])


def test_what_comes_online_from_shards_is_what_the_features_hold(
    loader: FeatureLoader, shards: str
) -> None:
    online = ShardLoader(shards, batch_size=5, seed=0, resolution=None)
    batch = next(TrainingData(online, LetterParts(), {}).batches(0))
    keys = loader.keys(torch.arange(22))
    stored = loader.rows(torch.tensor([keys.index(key) for key in batch["keys"]]))
    assert torch.equal(stored["letters"].values, batch["letters"].values)
    assert torch.equal(stored["letters"].lengths, batch["letters"].lengths)


def test_a_block_stores_no_padding(loader: FeatureLoader) -> None:
    path = Path(loader.folder) / "block-00000.safetensors"
    block = read_block(path)
    assert len(block["letters"].values) == int(block["count"].sum())
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert set(header) == {"__metadata__", "count", "letters", "letters.lengths"}


def test_packed_states_are_the_padded_ones_of_the_real_tokens() -> None:
    encoder = load_multilingual_encoder("testbed:xlm-r", max_length=8)
    packed = encoder.encode_packed(TEXTS)
    states, mask = encoder.encode(TEXTS)
    assert packed.lengths.tolist() == mask.sum(dim=1).tolist()
    assert packed.lengths.max() == 8, "the long one is cut"
    torch.testing.assert_close(packed.values, states[mask.bool()], atol=1e-4, rtol=1e-4)
    alone = [encoder.encode_packed([text]).values for text in TEXTS]
    torch.testing.assert_close(packed.values, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_padding_that_is_computed_once_is_what_the_model_gives_for_all_of_it() -> None:
    """In more texts than pass at a time, in an order that is not that of their lengths."""
    encoder = load_multilingual_encoder("testbed:xlm-r", max_length=12)
    texts = [TEXTS[number % 4] + " x" * (number % 9) for number in range(70)] + [""]
    states, mask = encoder.encode(texts)
    ids, expected_mask = encoder.tokenize(texts)
    with torch.no_grad():
        expected = encoder.model(ids, attention_mask=expected_mask).last_hidden_state
    assert torch.equal(mask, expected_mask) and states.shape == (71, 12, encoder.width)
    assert mask.sum(dim=1).min() == 2 and mask.sum(dim=1).max() == 12
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)
