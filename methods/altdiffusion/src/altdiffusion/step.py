"""One step of the UNet's stages: from a batch of latents and captions to the loss."""

from typing import Any

from altdiffusion.data import CaptionData
from altdiffusion.method import Loss, diffusion_loss, min_snr_weights, signal_to_noise
from crosslingual.frozen.base import Conditioning, Denoiser
from crosslingual.frozen.schedule import Generators, Noising, choose_language, drop_captions


def denoising_step(
    denoiser: Denoiser,
    noising: Noising,
    data: CaptionData,
    batch: dict[str, Any],
    draws: Generators,
    *,
    min_snr_gamma: float | None = None,
    stratified: bool = False,
) -> Loss:
    """Computes the loss of a batch and its parts; every row runs the same graph, native or not.

    Args:
        denoiser: wraps the UNet in training, or the engine around it.
        noising: the base's noise schedule, with the stage's caption dropout.
        data: gives the states of captions and of the empty prompt.
        batch: a batch from `CaptionData.batches`.
        draws: generators of all random draws, one per row.
        min_snr_gamma: gamma of min-SNR weights; every timestep counts the same if None.
        stratified: for validation: spreads timesteps over equal spans and drops no caption.
    """
    noisy = noising.draw(batch, draws, stratified)
    states = data.states(batch, choose_language(batch["has_language"], draws))
    states = drop_captions(states, data.null[None], noisy.dropped.cpu()).to(noising.device)
    predicted = denoiser.predict(noisy.latents, noisy.timesteps, Conditioning(states))
    weights = None
    if min_snr_gamma is not None:
        process = noising.process
        snr = signal_to_noise(process.alphas_cumprod, noisy.timesteps)
        weights = min_snr_weights(snr, min_snr_gamma, process.predicts_velocity)
    return diffusion_loss(predicted, noisy.target, batch["native"].to(noising.device), weights)
