"""What the UNet trains on: states of the drawn caption, from features and from shards alike; and
one step on them.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altdiffusion.data import FrozenParts, chosen_states, open_data
from altdiffusion.settings import TrainSettings
from altdiffusion.step import denoising_step
from altdiffusion.train import load_trainable_unet, open_noising
from altdiffusion.unet import load_stage_unet, trained_unet
from crosslingual.data.loader import ShardLoader
from crosslingual.features.loader import FeatureLoader
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks, row_generators, start_processes
from crosslingual.training.run import Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frozen(parts: dict[str, Any]) -> FrozenParts:
    return FrozenParts(TrainSettings(**parts), CPU)


@pytest.fixture
def settings(recipe: dict[str, Any]) -> TrainSettings:
    return TrainSettings(**recipe)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """This process alone, with its process group for as long as the module's tests."""
    yield start_processes()
    torch.distributed.destroy_process_group()


def test_features_give_the_states_that_the_text_encoder_gives_padded_to_all_tokens(
    frozen: FrozenParts, features: str, shards: str
) -> None:
    loader = FeatureLoader(features, batch_size=1, seed=0)
    batch = loader.rows(torch.tensor([20, 3, 7]))
    samples = next(
        ShardLoader(shards, batch_size=24, seed=0, resolution=32, shuffle=False).batches()
    )
    texts = [samples["captions"][20]["fr"][0], samples["captions"][3]["de"][0]]
    texts += [samples["captions"][7]["en"][0]]
    tokens = frozen.encoder.tokenizer(
        texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = frozen.encoder.model(**tokens).last_hidden_state
    states = chosen_states(batch, torch.tensor([2, 1, 0]), 16)
    torch.testing.assert_close(states.float(), expected, rtol=2e-3, atol=2e-3)
    assert batch["has_language"].tolist() == [[False, False, True], [True] * 3, [True] * 3]
    assert batch["native"].tolist() == [True, False, False]


def test_shards_and_features_give_the_same_latents_and_states(
    settings: TrainSettings, shards: str, ranks: Ranks
) -> None:
    """A sample for a sample, whatever the order of each."""
    arrays: list[dict[str, tuple[Tensor, ...]]] = []
    for train_data in (settings.train_data, shards):
        given = TrainSettings(
            **{**vars(settings), "train_data": train_data, "train_batch_size": 12}
        )
        data = open_data(given, ranks)
        found, batches = {}, data.batches(0)
        for batch in (next(batches), next(batches)):
            last = batch["has_language"].shape[1] - 1
            states = data.states(batch, torch.full((12,), last))
            columns = (batch["latent_mean"], batch["latent_std"], batch["native"], states)
            found |= dict(zip(data.keys(batch), zip(*columns, strict=True), strict=True))
        arrays.append(found)
    assert arrays[0].keys() == arrays[1].keys() and len(arrays[0]) == 24
    for key, ours in arrays[0].items():
        for one, other in zip(ours, arrays[1][key], strict=True):
            torch.testing.assert_close(one.float(), other.float(), rtol=2e-3, atol=2e-3)


class Step:
    """What a step of the given settings needs, called with a UNet."""

    def __init__(self, settings: TrainSettings, ranks: Ranks):
        self.base = Base.open(settings.pretrained_model_name_or_path)
        self.data, self.gamma = open_data(settings, ranks), settings.min_snr_gamma
        self.noising = open_noising(self.base, settings, CPU)
        self.batch = next(self.data.batches(0))
        self.draw = lambda: row_generators(0, 0, ranks, 4)

    def __call__(self, unet: nn.Module, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
        denoiser = self.base.wrap_denoiser(unet, resolution=32)
        given = (self.noising, self.data, self.batch, self.draw())
        return denoising_step(denoiser, *given, min_snr_gamma=self.gamma, **options)


def test_gradients_reach_exactly_what_trains_and_the_loss_is_that_of_a_plain_step(
    settings: TrainSettings, ranks: Ranks
) -> None:
    """The step again as diffusers' training scripts write it, without a line of ours but the
    draws.
    """
    settings.caption_dropout = 0.0
    step, unet = Step(settings, ranks), load_stage_unet(settings)
    batch = step.batch
    loss, parts = step(unet)
    loss.backward()
    for name, parameter in unet.named_parameters():
        is_trained = ".attn2.to_k." in name or ".attn2.to_v." in name
        assert parameter.requires_grad == is_trained
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_trained, name
    noisy = step.noising.draw(batch, generators := step.draw())
    chosen = torch.cat(
        [
            torch.multinomial(h.float(), 1, generator=g)
            for h, g in zip(batch["has_language"], generators, strict=True)
        ]
    )
    states = chosen_states(batch, chosen, 16).float()
    predicted = unet(noisy.latents, noisy.timesteps, encoder_hidden_states=states).sample
    plain = torch.nn.functional.mse_loss(predicted, noisy.target)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    assert set(parts) == {"parallel", "native"}


def test_dropped_rows_see_the_empty_prompt(settings: TrainSettings, ranks: Ranks) -> None:
    settings.caption_dropout = 1.0
    seen: list[Tensor] = []
    step, unet = Step(settings, ranks), load_stage_unet(settings)
    unet.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    step(unet)
    step(unet, stratified=True)
    empty = step.data.parts.encoder.encode_packed([""]).values
    assert torch.equal(seen[0], step.data.null.expand(4, -1, -1))
    torch.testing.assert_close(seen[0][0, : len(empty)], empty, rtol=2e-3, atol=2e-3)
    assert not torch.equal(seen[1], seen[0]), "a validation drops nothing"


@pytest.mark.parametrize(
    ("stage", "share"),
    [("concept_alignment", 0.0), ("quality_improvement", 0.0), ("guidance_tuning", 0.1)],
)
def test_each_stage_drops_as_many_captions_as_published_unless_told(
    settings: TrainSettings, ranks: Ranks, stage: str, share: float
) -> None:
    settings.stage, settings.caption_dropout = stage, None
    assert Step(settings, ranks).noising.caption_dropout == share
    settings.caption_dropout = 0.3
    assert Step(settings, ranks).noising.caption_dropout == 0.3


def test_min_snr_changes_the_loss_and_not_its_parts(settings: TrainSettings, ranks: Ranks) -> None:
    losses = []
    unet = load_stage_unet(settings)
    for gamma in (None, 5.0):
        settings.min_snr_gamma = gamma
        losses.append(Step(settings, ranks)(unet))
    assert losses[1][0] < losses[0][0]
    assert losses[0][1]["parallel"] == losses[1][1]["parallel"]


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"stage": "quality_improvement"}])
def test_the_optimiser_holds_what_trains_and_nothing_frozen(
    settings: TrainSettings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    given = TrainSettings(**{**vars(settings), "output_dir": str(tmp_path), **changes})
    engine = Run(given).prepare(load_trainable_unet(given))
    held = [id(p) for group in engine.optimizer.param_groups for p in group["params"]]
    wanted = {n: p for n, p in engine.module.named_parameters() if p.requires_grad}
    assert sorted(held) == sorted(id(p) for p in wanted.values())
    if changes.get("lora_rank"):
        assert len(wanted) == 2 * 2 * 4 and all("lora_" in name for name in wanted)
    elif "stage" in changes:
        assert len(wanted) == len(list(engine.module.parameters()))
    else:
        assert all(n.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for n in wanted)


def test_tensors_of_another_stage_are_not_put_into_a_unet(settings: TrainSettings) -> None:
    names = {name for name, _ in load_stage_unet(settings).named_parameters()}
    with pytest.raises(ValueError, match="these tensors are not what the stage trains"):
        trained_unet(settings, {name: torch.zeros(1) for name in names})


def test_lora_is_for_concept_alignment(settings: TrainSettings) -> None:
    for changes in ({"stage": "quality_improvement"}, {"all_attn2": True}):
        given = TrainSettings(**{**vars(settings), **changes, "lora_rank": 2})
        with pytest.raises(ValueError, match="lora_rank is for concept alignment"):
            load_stage_unet(given)


def test_a_folder_that_is_moved_keeps_its_features_fresh(
    frozen: FrozenParts, parts: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(parts["text_encoder"], tmp_path / "moved")
    settings = TrainSettings(**{**parts, "text_encoder": str(tmp_path / "moved")})
    moved = FrozenParts(settings, CPU)
    assert moved.made_of == frozen.made_of
