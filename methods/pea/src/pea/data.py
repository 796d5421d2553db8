"""PEA's training data: the outputs of its frozen parts for each sample."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from crosslingual.features.frozen_parts import (
    STORED,
    FrozenParts,
    draw_generators,
    english_text,
)
from crosslingual.frozen.base import Base, Denoiser
from crosslingual.frozen.schedule import Noising
from crosslingual.training.processes import Ranks
from pea.settings import TrainSettings
from pea.step import check_taught
from pea.warm_start import CrossAttentions


class PeaParts(FrozenParts):
    """The VAE gives latents; both text encoders give states, and masks if the base takes them; with
    `warm_start_draws`, English passes over noisy latents give what cross-attentions are asked.
    """

    def __init__(self, settings: TrainSettings, device: torch.device):
        """Opens the base that the settings name.

        Raises:
            ValueError: `warm_start_draws` is negative, without pictures, or for a base without
                cross-attention.
        """
        base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
        if settings.warm_start_draws < 0:
            raise ValueError("warm_start_draws must be at least 0")
        if settings.warm_start_draws and not settings.pictures:
            raise ValueError("warm_start_draws are of noisy pictures: leave out --pictures false")
        if settings.warm_start_draws and not base.family.has_cross_attention:
            raise ValueError(
                f"warm_start_draws are what cross-attentions are asked, and {base.id} has none"
            )
        super().__init__(
            base,
            settings.text_encoder,
            settings.languages,
            settings.max_length,
            encoder_revision=settings.text_encoder_revision,
            device=device,
            with_mask=base.text.takes_mask,
        )
        self.settings = settings

    @cached_property
    def english_pass(self) -> tuple[Denoiser, Noising]:
        """The denoiser and its noise schedule."""
        settings = self.settings
        denoiser = self.base.load_denoiser(self.device, resolution=settings.resolution)
        return denoiser, self.base.schedule(device=self.device, noise_offset=settings.noise_offset)

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """Everything that the arrays depend on, found without loading a model."""
        made_of, settings = super().made_of, self.settings
        if not settings.warm_start_draws:  # such a run can read features with them
            return made_of
        return {
            **made_of,
            "warm_start_draws": settings.warm_start_draws,
            "warm_start_queries": settings.warm_start_queries,
            "noise_offset": settings.noise_offset,
            "unet_weights": self.base.weights_hash("denoiser"),
        }

    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The arrays of `FrozenParts.encode`; with `warm_start_draws`, of each cross-attention what
        it is asked as `asked_0` and so on (B, draws, P, W).

        Raises:
            ValueError: the settings train without pictures, and English cannot teach a sample.
        """
        arrays = super().encode(batch)
        if not self.settings.pictures:
            check_taught(arrays, batch["keys"])
        return arrays | (
            self._asked(arrays, batch["keys"]) if self.settings.warm_start_draws else {}
        )

    @torch.no_grad()
    def _asked(self, arrays: dict[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
        """Of English passes over noisy latents, seeded by the sample's key."""
        denoiser, noising = self.english_pass
        english = english_text(arrays, self.device)
        layers = [layer for _, layer in denoiser.cross_attentions()]
        passes = []
        for draw in range(self.settings.warm_start_draws):
            rows = draw_generators(keys, draw)
            noisy = noising.draw(arrays, rows)
            with CrossAttentions(layers, self.settings.warm_start_queries, rows) as attentions:
                denoiser.predict(noisy.latents, noisy.timesteps, english)
            passes.append([asked.to("cpu", STORED) for asked in attentions.asked])
        return {
            f"asked_{number}": torch.stack(asked, dim=1)
            for number, asked in enumerate(zip(*passes, strict=True))
        }


def frozen_parts(settings: TrainSettings, ranks: Ranks) -> PeaParts:
    """The frozen parts of a run."""
    return PeaParts(settings, ranks.device)
