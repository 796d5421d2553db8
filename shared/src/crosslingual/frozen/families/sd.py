"""Stable Diffusion 1.x and 2.x: a UNet whose cross-attention reads the states of one text encoder.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv 2112.10752.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.denoiser import (
    Conditioning,
    Config,
    Denoiser,
    Family,
    PartConfig,
    TextShape,
)


class UNetDenoiser(Denoiser):
    """A `UNet2DConditionModel` under text states."""

    def _call(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        added = self._added(text)
        return self.model(
            latents, timesteps, text.states, added_cond_kwargs=added, return_dict=False
        )[0]

    def _added(self, text: Conditioning) -> dict[str, Tensor] | None:
        """What the UNet takes besides text states: nothing."""

    def blocks(self) -> list[nn.Module]:
        """Down, mid and up blocks: 4 + 1 + 4 in SD 1.x, 3 + 1 + 3 in SDXL. A down block's first
        answer is its hidden state, not its residuals.
        """
        unet = self.model
        middle = [] if unet.mid_block is None else [unet.mid_block]
        return [*unet.down_blocks, *middle, *unet.up_blocks]

    def cross_attentions(self) -> list[tuple[str, nn.Module]]:
        """Named `down_blocks.0...`, `mid_block...`, `up_blocks.1...`, as they run."""
        order = ("down_blocks", "mid_block", "up_blocks")
        found = super().cross_attentions()
        return sorted(found, key=lambda pair: order.index(pair[0].split(".")[0]))


class StableDiffusion(Family):
    """SD 1.x and 2.x."""

    name, part, model_class = "sd", "unet", "UNet2DConditionModel"
    denoiser = UNetDenoiser

    def recognises(self, config: Config) -> bool:
        """A UNet that takes nothing but text states."""
        plain = config.get("addition_embed_type") is None and config.get("class_embed_type") is None
        return super().recognises(config) and plain

    def widths(self, config: Config) -> tuple[int, int | None, int]:
        """The width of cross-attention; no pooled vector, no projection."""
        width = int(config["cross_attention_dim"])
        return width, None, width

    def text(self, config_of: PartConfig) -> TextShape:
        """As many tokens as the text encoder has positions, 77."""
        width, pooled_width, inner_width = self.widths(config_of(self.part))
        length = int(config_of("text_encoder").get("max_position_embeddings", 77))
        return TextShape(width, pooled_width, length, inner_width, (width,))

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """The states of CLIP's text encoder."""
        device = pipe.text_encoder.device
        return Conditioning(pipe.encode_prompt(prompts, device, 1, False)[0])

    def set_text(
        self, pipe: Any, text_encoder: nn.Module, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """The one slot. The pipeline takes the first entry of the answer for the states, and hands
        over a mask where the encoder's config has `use_attention_mask`.
        """
        pipe.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)
