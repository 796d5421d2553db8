"""Rehearsal: which captions are of languages that a model keeps, and which settings ask for it."""

import pytest
import torch

from crosslingual.training.rehearsal import draw_rehearsal, rehearse
from crosslingual.training.settings import ContinualSettings


def test_a_row_draws_of_its_kind_and_keeps_what_it_has_where_it_has_none():
    has = torch.tensor([[True, True, True], [True, True, True], [True, False, False]])
    found = rehearse(has, torch.tensor([False, True, True]), torch.tensor([True, False, True]))
    assert found.tolist() == [[False, True, True], [True, False, False], [True, False, False]]


def test_each_row_rehearses_with_the_chance_and_without_any_the_batch_stays():
    batch = {"has_language": torch.ones(2000, 3, dtype=torch.bool), "other": 1}
    draws = [torch.Generator().manual_seed(row) for row in range(2000)]
    assert draw_rehearsal(batch, None, None, draws) is batch
    found = draw_rehearsal(batch, [True, False, False], 0.2, draws)
    has = found["has_language"]
    assert has[:, 0].float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (has[:, 0] != has[:, 1]).all() and torch.equal(has[:, 1], has[:, 2])
    assert found["other"] == 1 and batch["has_language"].all()


@pytest.mark.parametrize(
    ("settings", "rehearsed"),
    [
        ({}, None),
        ({"rehearsal": 0.2}, [False, True]),
        ({"rehearsal": 0.0, "rehearsal_languages": ["de"]}, [True, False]),
    ],
)
def test_english_is_rehearsed_where_no_language_is_named(settings, rehearsed):
    assert ContinualSettings(**settings).rehearsed(["de", "en"]) == rehearsed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rehearsal": 1.5}, "must lie between 0 and 1"),
        ({"rehearsal_languages": ["de"]}, "needs --rehearsal"),
        ({"rehearsal": 0.1, "rehearsal_languages": ["de", "ja", "zh"]}, "add ja zh to --said"),
    ],
)
def test_a_share_that_is_none_or_a_language_that_does_not_train_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ContinualSettings(**settings).rehearsed(["de", "en"], "said")
