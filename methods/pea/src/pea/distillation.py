"""One step of distillation: a batch of frozen outputs through the teacher, the adapter and the
student.

One UNet serves both: the teacher's pass has no graph, the student's keeps activations but no weight
gradients.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.weights import freeze
from pea.config import TrainSettings
from pea.method import BlockOutputs, drop_captions, pea_loss, seed_loss

NullStates = dict[str, Tensor]
Generators = torch.Generator | list[torch.Generator]  # one for all rows, or one a row


@dataclass
class NoisyLatents:
    """What teacher and student share: latents (B, 4, h, w), timesteps (B,), the target and the
    dropped rows (B,).
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    dropped: Tensor


class Distillation:
    """The frozen UNet, its noise schedule and the empty prompt's states."""

    def __init__(
        self,
        unet: nn.Module,
        scheduler: Any,
        null: NullStates,
        vae_scaling: float,
        settings: TrainSettings,
    ):
        """`null` holds english_states (L, D), multilingual_states (M, C) and, for SDXL,
        english_pooled (P,).
        """
        self.unet = freeze(unet)
        self.scheduler, self.settings, self.vae_scaling = scheduler, settings, vae_scaling
        self.null = {
            name: tensor.to(unet.device, torch.float32)[None] for name, tensor in null.items()
        }
        self.device_type = unet.device.type

    def noisy_latents(
        self, batch: dict[str, Tensor], generator: Generators, stratified: bool
    ) -> NoisyLatents:
        """Draws a latent from the VAE's posterior, and noise, timestep and drop mask for it.

        `stratified` takes the timesteps in equal spans and drops no caption: for a validation that
        can be compared.
        """
        mean = batch["latent_mean"].float()
        num_rows, num_timesteps = mean.shape[0], self.scheduler.config.num_train_timesteps
        rows = one_a_row(generator, num_rows)

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(shape, generator=row) for row in rows])

        noise = normal(*mean.shape[1:])
        clean = (mean + batch["latent_std"].float() * normal(*mean.shape[1:])) * self.vae_scaling
        if self.settings.noise_offset:
            noise += self.settings.noise_offset * normal(mean.shape[1], 1, 1)
        if stratified:
            timesteps = ((torch.arange(num_rows) + 0.5) / num_rows * num_timesteps).long()
            dropped = torch.zeros(num_rows, dtype=torch.bool)
        else:
            timesteps = torch.cat([torch.randint(num_timesteps, (1,), generator=r) for r in rows])
            chances = torch.cat([torch.rand(1, generator=row) for row in rows])
            dropped = chances < self.settings.caption_dropout
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        is_velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(clean, noise, timesteps) if is_velocity else noise
        device = self.unet.device
        noisy = noisy.to(device, memory_format=torch.channels_last)
        return NoisyLatents(noisy, timesteps.to(device), target.to(device), dropped.to(device))

    def denoise(
        self, noisy: NoisyLatents, states: Tensor, pooled: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The UNet's prediction (B, 4, h, w) and its blocks' outputs under the given text
        states.
        """
        added = None
        if pooled is not None:
            edge = float(self.settings.resolution)
            time_ids = torch.tensor([edge, edge, 0.0, 0.0, edge, edge], device=states.device)
            added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(states), -1)}
        with self.autocast(), BlockOutputs(self.unet) as blocks:
            predicted = self.unet(
                noisy.latents, noisy.timesteps, states, added_cond_kwargs=added
            ).sample
        return predicted, blocks.outputs

    def autocast(self) -> torch.autocast:
        """bf16 where the settings ask for it."""
        return torch.autocast(
            self.device_type, torch.bfloat16, enabled=self.settings.mixed_precision == "bf16"
        )

    def loss(
        self,
        adapter: nn.Module,
        batch: dict[str, Tensor],
        generator: Generators,
        stratified: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts.

        Args:
            adapter: or the engine around it.
            batch: arrays of `crosslingual.feature_pass` (fp16 as stored).
            generator: of all that is drawn, row by row; one a row makes what is drawn for a sample
                independent of the batch that it is in.
            stratified: for validation.
        """
        device = self.unet.device
        noisy = self.noisy_latents(batch, generator, stratified)
        native = batch["native"] | ~batch["has_english"]
        chosen = choose_language(batch["has_language"], generator)
        states = batch["multilingual_states"][torch.arange(len(chosen)), chosen].to(
            device, torch.float32
        )
        english = drop_captions(
            batch["english_states"].to(device, torch.float32),
            self.null["english_states"],
            noisy.dropped,
        )
        english_pooled = None
        if "english_pooled" in batch:
            pooled = batch["english_pooled"].to(device, torch.float32)
            english_pooled = drop_captions(pooled, self.null["english_pooled"], noisy.dropped)
        with torch.no_grad():
            teacher_eps, teacher_blocks = self.denoise(noisy, english, english_pooled)
        # The empty prompt goes through the adapter: states and pooled vector are dropped together.
        student_states = drop_captions(states, self.null["multilingual_states"], noisy.dropped)
        student_eps, student_blocks = self.denoise(noisy, *adapter(student_states))
        if self.settings.variant == "seed":
            return seed_loss(
                student_eps,
                teacher_eps,
                noisy.target,
                native.to(device),
                self.settings.recon_weight,
                self.settings.temperature,
            )
        return pea_loss(
            student_eps,
            teacher_eps,
            noisy.target,
            student_blocks,
            teacher_blocks,
            native.to(device),
            self.settings.feature_weight,
        )


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
