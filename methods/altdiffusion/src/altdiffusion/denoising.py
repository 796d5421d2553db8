"""One step of the UNet's stages: a batch of latents and captions to the loss."""

from typing import Any

import torch
from torch import Tensor, nn

from altdiffusion.config import TrainSettings
from altdiffusion.data import CaptionData
from altdiffusion.method import (
    CAPTION_DROPOUT,
    diffusion_loss,
    min_snr_weights,
    signal_to_noise,
)
from crosslingual.frozen.schedule import Generators, Noising, choose_language, drop_captions


class Denoising:
    """The noise schedule, the empty prompt, and how a step's loss is made."""

    def __init__(
        self,
        data: CaptionData,
        scheduler: Any,
        vae_scaling: float,
        device: torch.device,
        settings: TrainSettings,
    ):
        """`data` gives the states of captions; `scheduler` adds noise."""
        dropout = settings.caption_dropout
        self.data, self.settings, self.device = data, settings, device
        self.null = data.null[None]
        self.noising = Noising(
            scheduler,
            vae_scaling,
            device=device,
            caption_dropout=CAPTION_DROPOUT[settings.stage] if dropout is None else dropout,
            noise_offset=settings.noise_offset,
        )

    def loss(
        self,
        unet: nn.Module,
        batch: dict[str, Any],
        generator: Generators,
        stratified: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts; every row runs the same graph, native or not.

        Args:
            unet: or the engine around it.
            batch: of `CaptionData.batches`.
            generator: of all that is drawn, row by row.
            stratified: for validation: equal spans of time, no caption dropped.
        """
        noisy = self.noising.draw(batch, generator, stratified)
        chosen = choose_language(batch["has_language"], generator)
        states = self.data.states(batch, chosen)
        states = drop_captions(states, self.null, noisy.dropped.cpu()).to(self.device)
        is_bf16 = self.settings.mixed_precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bf16):
            predicted = unet(noisy.latents, noisy.timesteps, states).sample
        weights, gamma = None, self.settings.min_snr_gamma
        if gamma is not None:
            scheduler = self.noising.scheduler
            snr = signal_to_noise(scheduler.alphas_cumprod, noisy.timesteps)
            is_velocity = scheduler.config.prediction_type == "v_prediction"
            weights = min_snr_weights(snr, gamma, is_velocity)
        return diffusion_loss(predicted, noisy.target, batch["native"].to(self.device), weights)
