"""FLUX.1: a transformer with one attention over text and picture, flow matching, and latents whose
2 x 2 positions are one token. It reads T5's states and CLIP's pooled vector.

Black Forest Labs, FLUX.1 (https://github.com/black-forest-labs/flux), 2024.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.denoiser import Conditioning, Config, Family, PartConfig, TextShape
from crosslingual.frozen.families.sd3 import JointDenoiser
from crosslingual.frozen.schedule import Process, read_flow

GUIDANCE = 3.5  # what a guidance-distilled model is told in training, as by X2I and diffusers
T5_LENGTH = 512


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) to tokens (B, h/2 w/2, 4 C) with their channels in the order C, row, column."""
    parts = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # B C h/2 2 w/2 2
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of `height` x `width` positions."""
    parts = tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (height // 2, width // 2))
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class FluxDenoiser(JointDenoiser):
    """A `FluxTransformer2DModel`. In bf16 the model rounds times and guidance to 8 bits, by up to
    0.4 %: teacher and student alike, and stock pipelines in bf16 too.
    """

    def _call(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        height, width = latents.shape[-2:]
        self.num_positions = height * width // 4
        rows = torch.arange(height // 2, device=latents.device)
        columns = torch.arange(width // 2, device=latents.device)
        places = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns)
        guidance = None
        if self.model.config.guidance_embeds:
            guidance = torch.full_like(timesteps, GUIDANCE, dtype=torch.float32)
        predicted = self.model(
            pack(latents),
            text.states,
            text.pooled,
            timesteps / 1000,
            img_ids=places.to(latents.dtype),
            txt_ids=latents.new_zeros(text.states.shape[1], 3),
            guidance=guidance,
            return_dict=False,
        )[0]
        return unpack(predicted, height, width)

    def blocks(self) -> list[nn.Module]:
        """The double blocks, then the single ones: 19 + 38."""
        return [*self.model.transformer_blocks, *self.model.single_transformer_blocks]


class Flux(Family):
    """FLUX.1 dev, schnell and models of their shape."""

    name, part, model_class = "flux", "transformer", "FluxTransformer2DModel"
    denoiser, packing, has_cross_attention = FluxDenoiser, 4, False

    def widths(self, config: Config) -> tuple[int, int | None, int]:
        """T5's width, and that of CLIP's pooled vector."""
        width = int(config["joint_attention_dim"])
        return width, int(config["pooled_projection_dim"]), width

    def text(self, config_of: PartConfig) -> TextShape:
        """T5's tokens."""
        width, pooled_width, inner_width = self.widths(config_of(self.part))
        return TextShape(width, pooled_width, T5_LENGTH, inner_width, (width,))

    def process(self, scheduler: Config, base: str) -> Process:
        """Flow matching."""
        return read_flow(scheduler, base)

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """T5's states and CLIP's pooled vector."""
        states, pooled, _ = pipe.encode_prompt(
            prompts, None, pipe.text_encoder.device, max_sequence_length=T5_LENGTH
        )
        return Conditioning(states, pooled)

    def set_text(
        self, pipe: Any, text_encoder: Any, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """Both slots: the first gives the pooled vector, the second the states."""
        pipe.register_modules(
            text_encoder=text_encoder.part("pooled"),
            text_encoder_2=text_encoder.part("states"),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
        )
        pipe.tokenizer_max_length = tokenizer.model_max_length  # else that of the base's tokenizer
