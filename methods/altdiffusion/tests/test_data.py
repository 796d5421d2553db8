"""What the UNet trains on: states of the drawn caption, from features and from shards alike; and
one step on them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from altdiffusion.config import TrainSettings
from altdiffusion.data import FrozenParts, chosen_states, frozen_parts, open_data
from altdiffusion.denoising import Denoising
from altdiffusion.train import build_training
from altdiffusion.unet import load_stage_unet, set_trainable, trained_unet
from crosslingual.data.loader import ShardLoader
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.training_data import row_generators
from crosslingual.frozen.base import load_noise_scheduler
from crosslingual.training.processes import Ranks, start_processes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frozen(parts: dict[str, Any]) -> FrozenParts:
    return frozen_parts(TrainSettings(**parts), CPU)


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


def denoising_of(settings: TrainSettings, ranks: Ranks) -> Denoising:
    scheduler = load_noise_scheduler(settings.pretrained_model_name_or_path)
    return Denoising(open_data(settings, ranks), scheduler, 0.5, CPU, settings)


def test_gradients_reach_exactly_what_trains_and_the_loss_is_that_of_a_plain_step(
    settings: TrainSettings, ranks: Ranks
) -> None:
    """The step again as diffusers' training scripts write it, without a line of ours but the
    draws.
    """
    settings.caption_dropout = 0.0
    denoising = denoising_of(settings, ranks)
    unet = set_trainable(load_stage_unet(settings), settings)
    batch = next(denoising.data.batches(0))
    loss, parts = denoising.loss(unet, batch, row_generators(0, 0, ranks, 4))
    loss.backward()
    for name, parameter in unet.named_parameters():
        is_trained = ".attn2.to_k." in name or ".attn2.to_v." in name
        assert parameter.requires_grad == is_trained
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_trained, name
    noisy = denoising.noising.draw(batch, generators := row_generators(0, 0, ranks, 4))
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
    denoising = denoising_of(settings, ranks)
    seen: list[Tensor] = []
    unet = set_trainable(load_stage_unet(settings), settings)
    unet.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    batch = next(denoising.data.batches(0))
    denoising.loss(unet, batch, row_generators(0, 0, ranks, 4))
    denoising.loss(unet, batch, row_generators(0, 0, ranks, 4), stratified=True)
    encoder = denoising.data.parts.encoder
    empty = encoder.encode_packed([""]).values
    assert torch.equal(seen[0], denoising.null.expand(4, -1, -1))
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
    assert denoising_of(settings, ranks).noising.caption_dropout == share
    settings.caption_dropout = 0.3
    assert denoising_of(settings, ranks).noising.caption_dropout == 0.3


def test_min_snr_changes_the_loss_and_not_its_parts(settings: TrainSettings, ranks: Ranks) -> None:
    losses = []
    unet = load_stage_unet(settings)
    for gamma in (None, 5.0):
        settings.min_snr_gamma = gamma
        denoising = denoising_of(settings, ranks)
        batch = next(denoising.data.batches(0))
        losses.append(denoising.loss(unet, batch, row_generators(0, 0, ranks, 4)))
    assert losses[1][0] < losses[0][0]
    assert losses[0][1]["parallel"] == losses[1][1]["parallel"]


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"stage": "quality_improvement"}])
def test_the_optimiser_holds_what_trains_and_nothing_frozen(
    settings: TrainSettings, ranks: Ranks, changes: dict[str, Any]
) -> None:
    engine, _ = build_training(TrainSettings(**{**vars(settings), **changes}))
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
    names = {n for n, p in set_trainable(load_stage_unet(settings), settings).named_parameters()}
    with pytest.raises(ValueError, match="what was trained is not what the stage trains"):
        trained_unet(settings, {name: torch.zeros(1) for name in names})


def test_lora_is_for_concept_alignment(settings: TrainSettings) -> None:
    for changes in ({"stage": "quality_improvement"}, {"all_attn2": True}):
        given = TrainSettings(**{**vars(settings), **changes, "lora_rank": 2})
        with pytest.raises(ValueError, match="lora_rank is for concept alignment"):
            set_trainable(load_stage_unet(given), given)


def test_a_folder_that_is_moved_keeps_its_features_fresh(
    frozen: FrozenParts, parts: dict[str, Any], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(parts["text_encoder"], tmp_path / "moved")
    moved = frozen_parts(TrainSettings(**{**parts, "text_encoder": str(tmp_path / "moved")}), CPU)
    assert moved.made_of == frozen.made_of
