"""One step: its gradient reaches the adapter alone; shards give what their features hold."""

from typing import Any

import torch

from crosslingual.features.loader import FeatureLoader
from crosslingual.features.training_data import open_run_data
from crosslingual.training.processes import Ranks, row_generators
from template.artifact import adapter_config
from template.data import frozen_parts
from template.method import build_adapter
from template.settings import TrainSettings
from template.step import text_space_step

ALONE = Ranks(0, 1, 0, torch.device("cpu"))


def test_gradient_reaches_exactly_the_adapter(recipe: dict[str, Any]) -> None:
    settings = TrainSettings(**recipe)
    loader = FeatureLoader(settings.train_data, batch_size=8, seed=0)
    batch = next(loader.batches())
    null = {name: array.float() for name, array in loader.null().items()}
    before = {name: array.clone() for name, array in batch.items()}
    adapter = build_adapter(adapter_config(settings))
    loss, _ = text_space_step(adapter, null, batch, row_generators(0, 0, ALONE, 8), settings)
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())
    frozen = [*batch.values(), *null.values()]
    assert all(not array.requires_grad and array.grad is None for array in frozen)
    assert all(torch.equal(batch[name], array) for name, array in before.items())


def test_shards_give_the_arrays_of_their_features(recipe: dict[str, Any], shards: str) -> None:
    def open_data(train_data: str) -> Any:
        settings = TrainSettings(**{**recipe, "train_data": train_data})
        return open_run_data(settings, frozen_parts(settings, ALONE), ALONE, has_pictures=False)

    online, stored = open_data(shards), open_data(recipe["train_data"])
    batch = next(online.batches(0))
    rows = torch.tensor([int(key) for key in online.keys(batch)])  # the keys count the samples
    torch.testing.assert_close(stored.null, online.null)
    for name, array in stored.loader.rows(rows).items():
        torch.testing.assert_close(batch[name], array, rtol=1e-3, atol=1e-3)
