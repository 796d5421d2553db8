"""What a training step of a diffusion model draws: latent, noise, timestep, dropped captions, and a
language a row.

Everything is drawn row by row from generators that are given, so that what a sample sees does not
depend on the batch, the micro-step or the process that it is in.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Generators = torch.Generator | list[torch.Generator]  # one for all rows, or one a row


@dataclass
class NoisyLatents:
    """What every pass of a step shares: latents (B, 4, h, w), timesteps (B,), the target that an
    ideal prediction equals (B, 4, h, w), and the rows whose caption is dropped (B,).
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    dropped: Tensor


class Noising:
    """A base's noise schedule, and how often captions are dropped."""

    def __init__(
        self,
        scheduler: Any,
        vae_scaling: float,
        *,
        device: torch.device,
        caption_dropout: float = 0.0,
        noise_offset: float = 0.0,
    ):
        """Keeps what is given.

        Args:
            scheduler: of `crosslingual.frozen.base.load_noise_scheduler`.
            vae_scaling: latents of the VAE times this have about unit variance.
            device: of what is drawn.
            caption_dropout: share of rows that see the empty prompt.
            noise_offset: strength of a per-channel shift of the noise.
        """
        self.scheduler, self.vae_scaling, self.device = scheduler, vae_scaling, device
        self.caption_dropout, self.noise_offset = caption_dropout, noise_offset

    def draw(
        self, batch: dict[str, Tensor], generator: Generators, stratified: bool = False
    ) -> NoisyLatents:
        """Draws a latent from the VAE's posterior, and noise, timestep and drop mask for it.

        Args:
            batch: `latent_mean` and `latent_std` (B, 4, h, w).
            generator: one for all rows or one a row.
            stratified: takes the timesteps in equal spans and drops no caption: for a validation
                that can be compared.
        """
        mean = batch["latent_mean"].float()
        num_rows, num_timesteps = mean.shape[0], self.scheduler.config.num_train_timesteps
        rows = one_a_row(generator, num_rows)

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(shape, generator=row) for row in rows])

        noise = normal(*mean.shape[1:])
        clean = (mean + batch["latent_std"].float() * normal(*mean.shape[1:])) * self.vae_scaling
        if self.noise_offset:
            noise += self.noise_offset * normal(mean.shape[1], 1, 1)
        if stratified:
            timesteps = ((torch.arange(num_rows) + 0.5) / num_rows * num_timesteps).long()
            dropped = torch.zeros(num_rows, dtype=torch.bool)
        else:
            timesteps = torch.cat([torch.randint(num_timesteps, (1,), generator=r) for r in rows])
            chances = torch.cat([torch.rand(1, generator=row) for row in rows])
            dropped = chances < self.caption_dropout
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        is_velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(clean, noise, timesteps) if is_velocity else noise
        noisy = noisy.to(self.device, memory_format=torch.channels_last)
        placed = (part.to(self.device) for part in (timesteps, target, dropped))
        return NoisyLatents(noisy, *placed)


def one_a_row(generator: Generators, num_rows: int) -> list[torch.Generator]:
    """A generator for each row, the same one where there is only one."""
    return generator if isinstance(generator, list) else [generator] * num_rows


def choose_language(has_language_BN: Tensor, generator: Generators) -> Tensor:
    """One language a row, drawn evenly from those that the row has: (B,).

    Raises:
        ValueError: a row has none.
    """
    if not bool(has_language_BN.any(dim=1).all()):
        raise ValueError(
            "a sample has no caption in any language that trains: choose others by --languages"
        )
    rows = zip(has_language_BN.float(), one_a_row(generator, len(has_language_BN)), strict=True)
    return torch.cat([torch.multinomial(has_N, 1, generator=row) for has_N, row in rows])


def drop_captions(states_B: Tensor, null: Tensor, dropped_B: Tensor) -> Tensor:
    """Puts the empty prompt's states (or pooled vector) in the dropped rows; both of a sample go
    together.
    """
    shape = (-1, *(1 for _ in states_B.shape[1:]))
    return torch.where(dropped_B.view(shape), null.to(states_B.dtype), states_B)
