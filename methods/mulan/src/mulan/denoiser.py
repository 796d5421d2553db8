"""The frozen UNet, or PixArt's transformer, under text states: one call for all families."""

from typing import Any

import torch
from torch import Tensor

from crosslingual.frozen.base import load_denoiser as load_model
from crosslingual.frozen.schedule import NoisyLatents
from crosslingual.frozen.weights import freeze
from crosslingual.training.processes import Ranks
from mulan.config import TrainSettings
from mulan.method import Conditioning


class Denoiser:
    """A base's denoising model, frozen, in bf16 autocast where the settings ask for it.

    PixArt's own caption projection is left out: the adapter is its replacement.
    """

    def __init__(self, model: Any, settings: TrainSettings):
        """`model` is a UNet2DConditionModel or a PixArtTransformer2DModel."""
        self.model = freeze(model)
        self.settings = settings
        self.is_transformer = hasattr(model, "caption_projection")
        if self.is_transformer:
            model.caption_projection = None

    def predict(
        self, noisy: NoisyLatents, conditioning: Conditioning, mask: Tensor | None
    ) -> Tensor:
        """The prediction (B, 4, h, w) of noise or velocity.

        Args:
            noisy: latents and timesteps.
            conditioning: states (B, Q, D) and the pooled vector (B, P) or None.
            mask: (B, Q) of the states, which PixArt's transformer takes.
        """
        states, pooled = conditioning
        enabled = self.settings.mixed_precision == "bf16"
        with torch.autocast(states.device.type, torch.bfloat16, enabled=enabled):
            if self.is_transformer:
                return self._predict_by_transformer(noisy, states, mask)
            added = None
            if pooled is not None:
                edge = float(self.settings.resolution)
                sizes = torch.tensor([edge, edge, 0.0, 0.0, edge, edge], device=states.device)
                added = {"text_embeds": pooled, "time_ids": sizes.expand(len(states), -1)}
            return self.model(
                noisy.latents, noisy.timesteps, states, added_cond_kwargs=added, return_dict=False
            )[0]

    def _predict_by_transformer(self, noisy: NoisyLatents, states: Tensor, mask: Tensor) -> Tensor:
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.model.use_additional_conditions:
            edge = float(self.settings.resolution)
            sizes["resolution"] = states.new_full((len(states), 2), edge)
            sizes["aspect_ratio"] = states.new_ones(len(states), 1)
        predicted = self.model(
            noisy.latents.contiguous(),
            states,
            noisy.timesteps,
            sizes,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
        return predicted[:, : noisy.latents.shape[1]]  # the rest is a learned variance


def load_denoiser(settings: TrainSettings, ranks: Ranks) -> Denoiser:
    """The base's model on this process's device, as the settings want it run."""
    model = load_model(settings.pretrained_model_name_or_path, settings.revision)
    model = model.to(ranks.device, memory_format=torch.channels_last)
    denoiser = Denoiser(model, settings)
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
        model.train()  # checkpointing works in this mode only; no dropout, no running statistics
    if settings.compile:
        model.compile()
    return denoiser
