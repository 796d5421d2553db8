"""What every method promises: training lowers the loss; a stopped run goes on as if it never was;
what is exported is what was trained.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import template.train
from crosslingual.adapter.artifact import load_artifact
from crosslingual.adapter.pipeline import GenerateSettings
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.training_data import row_generators
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.training.processes import Ranks
from template.config import ExportSettings
from template.data import open_data
from template.export import export, load_adapter
from template.generate import generate, load_pipeline
from template.info import adapter_config
from template.method import build_adapter
from template.train import batch_loss, train

ALONE = Ranks(0, 1, 0, torch.device("cpu"))


def state_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_artifact(folder)[1]


def test_training_lowers_the_loss(recipe: Any, losses: Any) -> None:
    settings = recipe(max_train_steps=30)
    train(settings)
    curve = losses(settings.output_dir)
    assert sum(curve[-5:]) < 0.7 * sum(curve[:5])


def test_gradient_reaches_exactly_the_adapter(recipe: Any) -> None:
    settings = recipe()
    loader = FeatureLoader(settings.train_data, batch_size=8, seed=0)
    batch = next(loader.batches())
    null = {name: array.float() for name, array in loader.null().items()}
    before = {name: array.clone() for name, array in batch.items()}
    adapter = build_adapter(adapter_config(settings))
    loss, _ = batch_loss(adapter, batch, null, settings, row_generators(0, 0, ALONE, 8))
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())
    frozen = [*batch.values(), *null.values()]
    assert all(not array.requires_grad and array.grad is None for array in frozen)
    assert all(torch.equal(batch[name], array) for name, array in before.items())


def test_a_run_stopped_by_sigterm_goes_on_with_the_same_losses(
    recipe: Any, losses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulated = {"train_batch_size": 4, "gradient_accumulation_steps": 2}
    whole = train(recipe(**accumulated))
    settings = recipe(**accumulated, output_dir=str(tmp_path / "stopped"))
    record = template.train.Progress.step

    def record_and_stop(progress: Any, step: int, *values: Any) -> None:
        record(progress, step, *values)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(template.train.Progress, "step", record_and_stop)
        train(settings)
    assert len(losses(settings.output_dir)) == 3
    settings.resume_from_checkpoint = "latest"
    resumed = train(settings)
    assert losses(settings.output_dir) == losses(whole.parent)
    torch.testing.assert_close(state_of(resumed), state_of(whole), rtol=0, atol=0)


def test_micro_batches_that_accumulate_are_one_batch(recipe: Any, tmp_path: Path) -> None:
    whole = train(recipe(max_train_steps=3))
    split = {"train_batch_size": 4, "gradient_accumulation_steps": 2, "max_train_steps": 3}
    parts = train(recipe(**split, output_dir=str(tmp_path / "split")))
    torch.testing.assert_close(state_of(parts), state_of(whole), rtol=1e-3, atol=1e-4)


def test_shards_give_the_arrays_of_their_features(recipe: Any, shards: str) -> None:
    online = open_data(recipe(train_data=shards), ALONE)
    stored = open_data(recipe(), ALONE)
    batch = next(online.batches(0))
    rows = torch.tensor([int(key) for key in online.keys(batch)])  # the keys count the samples
    torch.testing.assert_close(stored.null, online.null)
    for name, array in stored.loader.rows(rows).items():
        torch.testing.assert_close(batch[name], array, rtol=1e-3, atol=1e-3)


def test_an_exported_checkpoint_is_the_trained_adapter(recipe: Any, tmp_path: Path) -> None:
    adapter = train(recipe())
    settings = ExportSettings(str(tmp_path / "run"), str(tmp_path / "exported"))
    folder = export(settings)
    torch.testing.assert_close(state_of(folder), state_of(adapter), rtol=0, atol=0)
    module, config = load_adapter(folder)
    pipe = load_pipeline(str(folder))
    encoder = load_multilingual_encoder(config["text_encoder"], None, config["max_length"])
    ids, mask = encoder.tokenize(["ein Haus"])
    expected, _ = module(encoder.encode(["ein Haus"])[0])
    torch.testing.assert_close(pipe.text_encoder(ids, attention_mask=mask)[0], expected)
    pictures = generate(
        GenerateSettings(
            prompt=["ein Haus"],
            adapter=str(folder),
            output_dir=str(tmp_path / "pictures"),
            num_inference_steps=1,
        )
    )
    assert Image.open(pictures / "00000" / "samples" / "0000.png").size == (64, 64)
