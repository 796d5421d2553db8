"""One step of distillation: a batch of frozen outputs through the teacher, the adapter and the
student.

One UNet serves both: the teacher's pass has no graph, the student's keeps activations but no weight
gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.schedule import (
    Generators,
    Noising,
    NoisyLatents,
    choose_language,
    drop_captions,
)
from crosslingual.frozen.weights import freeze
from pea.config import TrainSettings
from pea.method import BlockOutputs, pea_loss, seed_loss

NullStates = dict[str, Tensor]


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
        self.settings = settings
        self.noising = Noising(
            scheduler,
            vae_scaling,
            device=unet.device,
            caption_dropout=settings.caption_dropout,
            noise_offset=settings.noise_offset,
        )
        self.null = {
            name: tensor.to(unet.device, torch.float32)[None] for name, tensor in null.items()
        }
        self.device_type = unet.device.type

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
            batch: arrays of `crosslingual.features.compute` (fp16 as stored).
            generator: of all that is drawn, row by row; one a row makes what is drawn for a sample
                independent of the batch that it is in.
            stratified: for validation.
        """
        device = self.unet.device
        noisy = self.noising.draw(batch, generator, stratified)
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
