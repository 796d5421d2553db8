"""What TriKD's batches hold, and that they hold the same from features and from shards."""

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crosslingual.data.loader import ShardLoader
from crosslingual.features.loader import FeatureLoader, read_index
from crosslingual.training.processes import Ranks
from mclip.data import RetrievalParts, TriKDData, draw_languages, open_data
from mclip.settings import TrainSettings

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, 0, CPU)


def settings(parts: dict[str, Any], train_data: str, **changes: Any) -> TrainSettings:
    return TrainSettings(**{**parts, "train_data": train_data, "train_batch_size": 8, **changes})


def batches(data: TriKDData, first: int, count: int) -> list[dict[str, Any]]:
    found = data.batches(first)
    return [next(found) for _ in range(count)]


@pytest.fixture(scope="module")
def frozen(parts: dict[str, Any]) -> RetrievalParts:
    return RetrievalParts(TrainSettings(**parts), CPU)


def test_features_hold_what_the_frozen_parts_say_one_by_one(
    frozen: RetrievalParts, parts: dict[str, Any], shards: str, features: str
) -> None:
    """Each caption by itself, so that no padding and no neighbour has a say."""
    stored = FeatureLoader(features, batch_size=1, seed=0)
    options = {"batch_size": 24, "seed": 0, "resolution": parts["resolution"], "shuffle": False}
    samples = next(ShardLoader(shards, **options).batches())
    arrays = stored.rows(torch.arange(24))
    assert arrays["has_language"].sum(dim=0).tolist() == [18, 24, 12]
    assert torch.equal(arrays["has_english"], arrays["has_language"][:, 0])
    images = frozen.clip.encode_images(samples["images"])
    torch.testing.assert_close(arrays["image_embeds"].float(), images, atol=2e-3, rtol=2e-3)
    for row, captions in enumerate(samples["captions"]):
        text = torch.zeros(1, frozen.clip.width)
        if "en" in captions:
            text = frozen.clip.encode_texts(captions["en"])
        embed = arrays["text_embeds"][row : row + 1].float()
        torch.testing.assert_close(embed, text, atol=2e-3, rtol=2e-3)
        for language in frozen.languages:
            found = arrays[f"states_{language}"].rows()[row].float()
            if language not in captions:
                assert len(found) == 0
                continue
            states, mask = frozen.encoder.encode(captions[language])
            expected = states[0, : int(mask.sum())]
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


class InOrderOfFeatures:
    """A loader of shards that gives the samples which features give at each step."""

    def __init__(self, shards: str, features: FeatureLoader, resolution: int) -> None:
        options = {"batch_size": 24, "seed": 0, "resolution": resolution, "shuffle": False}
        self.samples = next(ShardLoader(shards, **options).batches())
        self.features = features

    def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        for step in count(start_step):
            rows = self.features.indices(step)
            lists = {
                name: [self.samples[name][row] for row in rows.tolist()]
                for name in ("keys", "captions")
            }
            yield {**lists, "images": self.samples["images"][rows]}


def test_shards_and_features_give_the_same_batches(
    parts: dict[str, Any], shards: str, features: str
) -> None:
    read = open_data(settings(parts, features), ALONE)
    ordered = InOrderOfFeatures(shards, read.loader, parts["resolution"])
    encoded = TriKDData(ordered, read.parts, read.seed, ALONE)
    for ours, theirs in zip(batches(read, 2, 4), batches(encoded, 2, 4), strict=True):
        assert read.keys(ours) == encoded.keys(theirs)
        for name in ("is_english", "lengths"):
            assert torch.equal(ours[name], theirs[name])
        close = {"atol": 2e-3, "rtol": 2e-3}  # of fp16, as stored
        torch.testing.assert_close(ours["image_embeds"], theirs["image_embeds"], **close)
        torch.testing.assert_close(ours["states"], theirs["states"], **close)
        english = ours["is_english"]
        assert english.any() and not english.all()
        texts = [batch["text_embeds"][english] for batch in (ours, theirs)]
        torch.testing.assert_close(*texts, **close)


def test_from_shards_the_drawn_captions_alone_are_encoded(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], shards: str
) -> None:
    data = open_data(settings(parts, shards), ALONE)
    seen = {"states": 0, "english": 0}
    encode_packed, encode_texts = data.parts.encoder.encode_packed, data.parts.clip.encode_texts

    def counting_packed(texts: list[str]) -> Any:
        seen["states"] += len(texts)
        return encode_packed(texts)

    def counting_texts(texts: list[str]) -> Tensor:
        seen["english"] += len(texts)
        return encode_texts(texts)

    monkeypatch.setattr(data.parts.encoder, "encode_packed", counting_packed)
    monkeypatch.setattr(data.parts.clip, "encode_texts", counting_texts)
    batch = batches(data, 0, 1)[0]
    assert seen == {"states": 8, "english": int(batch["is_english"].sum())}


def test_from_features_the_drawn_languages_rows_alone_are_read(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], features: str
) -> None:
    data = open_data(settings(parts, features), ALONE)
    rows, read = data.loader.rows, Counter()

    def counting_rows(indices: Tensor, names: list[str]) -> Any:
        read.update({name: len(indices) for name in names})
        return rows(indices, names)

    monkeypatch.setattr(data.loader, "rows", counting_rows)
    batches(data, 0, 1)
    assert sum(number for name, number in read.items() if name.startswith("states_")) == 8
    assert read["image_embeds"] == read["text_embeds"] == read["has_language"] == 8


def contents(data: TriKDData, batch: dict[str, Any]) -> dict[str, Tensor]:
    states = batch["states"].split(batch["lengths"].tolist())
    return dict(zip(data.keys(batch), states, strict=True))


def test_the_samples_and_captions_of_a_step_do_not_depend_on_the_ranks(
    parts: dict[str, Any], features: str
) -> None:
    alone = open_data(settings(parts, features), ALONE)
    halves = [
        open_data(settings(parts, features, train_batch_size=4), Ranks(rank, 2, rank, CPU))
        for rank in range(2)
    ]
    whole = contents(alone, batches(alone, 5, 1)[0])
    shared = [contents(half, batches(half, 5, 1)[0]) for half in halves]
    assert len(whole) == 8 and not shared[0].keys() & shared[1].keys()
    for key, states in {**shared[0], **shared[1]}.items():
        assert torch.equal(states, whole[key])


def test_an_image_keeps_its_caption_when_rows_are_grouped_by_language(
    parts: dict[str, Any], features: str
) -> None:
    data = open_data(settings(parts, features), ALONE)
    batch = batches(data, 0, 1)[0]
    rows = data.loader.rows(batch["rows"])
    assert torch.equal(batch["image_embeds"], rows["image_embeds"])
    for row, states in enumerate(batch["states"].split(batch["lengths"].tolist())):
        own = [rows[f"states_{name}"].rows()[row] for name in ("en", "de", "fr")]
        assert any(torch.equal(states, other) for other in own)
        assert not batch["is_english"][row] or torch.equal(states, own[0])


def test_languages_are_drawn_evenly_from_those_that_a_sample_has() -> None:
    has = torch.tensor([[True, True, True], [True, False, True], [False, True, False]] * 100)
    drawn = torch.stack([draw_languages(has, 0, step, ALONE) for step in range(40)])
    for kind, shares in enumerate([[1 / 3] * 3, [1 / 2, 0, 1 / 2], [0, 1, 0]]):
        found = torch.bincount(drawn[:, kind::3].flatten(), minlength=3) / drawn[:, kind::3].numel()
        assert found.tolist() == pytest.approx(shares, abs=0.03)
    assert torch.equal(draw_languages(has, 0, 7, ALONE), drawn[7])
    assert not torch.equal(draw_languages(has, 1, 7, ALONE), drawn[7])
    again = draw_languages(has[::3], 0, 7, ALONE, [False, True, False], 0.2)
    assert (again == 1).float().mean().item() == pytest.approx(0.2, abs=0.1)
    has[5] = False
    with pytest.raises(ValueError, match="no caption in any language that trains"):
        draw_languages(has, 0, 0, ALONE)


def test_features_of_other_weights_at_the_same_place_are_refused(
    parts: dict[str, Any], features: str, tmp_path: Path
) -> None:
    """The folder's name is as it was, the weights are those of a further training."""
    stored = read_index(features).made_of
    frozen = RetrievalParts(TrainSettings(**parts), CPU)
    assert {name: stored[name] for name in frozen.made_of} == frozen.made_of
    encoder = tmp_path / "encoder"
    shutil.copytree(parts["text_encoder"], encoder)
    before = RetrievalParts(TrainSettings(**{**parts, "text_encoder": str(encoder)}), CPU).made_of
    weights = load_file(encoder / "model.safetensors")
    save_file(
        {name: value + 1e-3 for name, value in weights.items()}, encoder / "model.safetensors"
    )
    after = RetrievalParts(TrainSettings(**{**parts, "text_encoder": str(encoder)}), CPU).made_of
    assert {name for name in before if before[name] != after[name]} == {"encoder_weights"}
