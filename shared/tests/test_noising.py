"""What a training step draws: latents, noise, timesteps, dropped captions, a language a row."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from crosslingual.frozen.schedule import (
    Diffusion,
    Latents,
    Noising,
    choose_language,
    draw_dropped,
    drop_captions,
)
from crosslingual.training.processes import Ranks, row_generators

ROWS, VAE_SCALING, CPU = 6, 0.5, torch.device("cpu")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(*shape: int) -> dict[str, Tensor]:
    generator = draws()
    mean, std = (torch.randn(shape, generator=generator) for _ in range(2))
    return {"latent_mean": mean, "latent_std": std.abs()}


def noising(prediction_type: str = "epsilon", **settings: float) -> Noising:
    process = Diffusion(DDPMScheduler(prediction_type=prediction_type))
    return Noising(process, Latents(4, VAE_SCALING), device=CPU, **settings)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_target_is_what_an_ideal_prediction_would_be(prediction_type: str) -> None:
    """x_t = a x + s e; the noise e, or the velocity a e - s x (Salimans and Ho 2022)."""
    ours = noising(prediction_type)
    batch = latents(ROWS, 4, 4, 4)
    batch["latent_std"].zero_()
    noisy = ours.draw(batch, draws())
    clean = batch["latent_mean"] * VAE_SCALING
    shares = ours.process.alphas_cumprod[noisy.timesteps].view(-1, 1, 1, 1)
    a, s = shares.sqrt(), (1 - shares).sqrt()
    noise = (noisy.latents - a * clean) / s
    expected = noise if prediction_type == "epsilon" else a * noise - s * clean
    torch.testing.assert_close(noisy.target, expected, atol=1e-4, rtol=1e-3)


def test_latents_are_drawn_from_the_posterior_and_scaled() -> None:
    ours = noising()
    batch = {"latent_mean": torch.full((64, 4, 16, 16), 3.0)}
    batch |= {"latent_std": torch.full((64, 4, 16, 16), 2.0)}
    noisy = ours.draw(batch, draws())
    kept = ours.process.alphas_cumprod[noisy.timesteps].view(-1, 1, 1, 1)
    clean = (noisy.latents - (1 - kept).sqrt() * noisy.target) / kept.sqrt()
    usable = kept.flatten() > 0.05  # elsewhere the noise hides the latent
    assert usable.sum() >= 16
    assert clean[usable].mean().item() == pytest.approx(3.0 * VAE_SCALING, rel=0.02)
    assert clean[usable].std().item() == pytest.approx(2.0 * VAE_SCALING, rel=0.02)


def test_latents_are_shifted_before_they_are_scaled() -> None:
    """As SD3's and FLUX' are; with no noise left the latent itself is seen."""
    batch = latents(ROWS, 4, 4, 4)
    batch["latent_std"].zero_()
    process = noising().process
    seen = []
    for shift in (0.0, 2.0):
        ours = Noising(process, Latents(4, VAE_SCALING, shift), device=CPU)
        seen.append(ours.draw(batch, draws()))
    kept = process.alphas_cumprod[seen[0].timesteps].sqrt().view(-1, 1, 1, 1)
    difference = seen[0].latents - seen[1].latents
    torch.testing.assert_close(difference, (kept * 2.0 * VAE_SCALING).expand_as(difference))


def test_noise_offset_shifts_whole_channels() -> None:
    batch = {name: torch.zeros(64, 4, 16, 16) for name in ("latent_mean", "latent_std")}
    target = noising(noise_offset=0.5).draw(batch, draws()).target
    assert target.mean(dim=(2, 3)).std().item() == pytest.approx(0.5, rel=0.15)
    assert target.std(dim=(2, 3)).mean().item() == pytest.approx(1.0, rel=0.02)


def test_captions_are_dropped_as_often_as_asked_and_never_in_validation() -> None:
    ours, batch = noising(caption_dropout=0.3), latents(1000, 4, 2, 2)
    assert ours.draw(batch, draws()).dropped.float().mean().item() == pytest.approx(0.3, abs=0.05)
    validation = ours.draw(batch, draws(), stratified=True)
    assert not validation.dropped.any()
    assert torch.equal(validation.timesteps, torch.arange(1000))
    alone = draw_dropped([torch.Generator().manual_seed(row) for row in range(1000)], 0.3)
    assert alone.float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_what_is_drawn_for_a_row_does_not_depend_on_its_batch() -> None:
    """With a generator a row, two half batches of two processes are the whole batch of one."""
    ours, batch = noising(noise_offset=0.5, caption_dropout=0.5), latents(ROWS, 4, 4, 4)
    halves = []
    for rank in range(2):
        rows = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
        half = {name: array[rows] for name, array in batch.items()}
        halves.append(ours.draw(half, row_generators(3, 5, Ranks(rank, 2, rank, CPU), ROWS // 2)))
    whole = ours.draw(batch, row_generators(3, 5, Ranks(0, 1, 0, CPU), ROWS))
    for name, array in vars(whole).items():
        assert torch.equal(torch.cat([vars(half)[name] for half in halves]), array)
    assert len(whole.timesteps.unique()) == ROWS


def test_a_language_is_drawn_evenly_from_those_that_a_row_has() -> None:
    has = torch.tensor([[True, False, False], [True, True, False]]).repeat(500, 1)
    chosen = choose_language(has, draws())
    assert has[torch.arange(1000), chosen].all()
    assert chosen[1::2].float().mean().item() == pytest.approx(0.5, abs=0.1)
    has[7] = False
    with pytest.raises(ValueError, match="no caption in any language that trains"):
        choose_language(has, draws())


def test_dropped_rows_get_the_empty_prompts_states() -> None:
    states, null = torch.randn(3, 2, 5), torch.randn(1, 2, 5, dtype=torch.float64)
    mixed = drop_captions(states, null, torch.tensor([False, True, True]))
    assert torch.equal(mixed[0], states[0]) and mixed.dtype == states.dtype
    assert torch.equal(mixed[1:], null.float().expand(2, -1, -1))
