"""Sana: a transformer of linear attention whose cross-attention reads Gemma's states under a mask,
after a projection and a norm of its own, on latents of 32 x 32 pixels, by flow matching.

Xie et al., "SANA: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers",
arXiv 2410.10629.
"""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.denoiser import Conditioning, Config, Denoiser, PartConfig, TextShape
from crosslingual.frozen.families.pixart import PixArt
from crosslingual.frozen.schedule import Latents, Process, read_flow

GEMMA_LENGTH = 300


class SanaDenoiser(Denoiser):
    """A `SanaTransformer2DModel`."""

    def _call(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        return self.model(
            latents.contiguous(),
            text.states,
            timesteps * self.model.config.timestep_scale,
            encoder_attention_mask=text.mask,
            return_dict=False,
        )[0]

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, each of which answers the picture's tokens."""
        return list(self.model.transformer_blocks)

    def text_projection(self) -> nn.Module:
        """The projection of captions and the norm after it."""
        return nn.Sequential(self.model.caption_projection, self.model.caption_norm)


class Sana(PixArt):
    """Sana. An adapter takes the place of the projection of captions; the norm after it stays."""

    name, model_class, denoiser = "sana", "SanaTransformer2DModel", SanaDenoiser
    adapted_options = {"complex_human_instruction": None}

    def text(self, config_of: PartConfig) -> TextShape:
        """Gemma's tokens, of which the pipeline keeps the first and the last 299."""
        width, pooled_width, inner_width = self.widths(config_of(self.part))
        return TextShape(width, pooled_width, GEMMA_LENGTH, inner_width, (width,), takes_mask=True)

    def latents(self, vae: Config) -> Latents:
        """Those of a deep compression autoencoder."""
        downscale = 2 ** (len(vae["encoder_block_out_channels"]) - 1)
        return Latents(
            int(vae["latent_channels"]), float(vae["scaling_factor"]), downscale=downscale
        )

    def posterior(self, vae: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """The one latent of each picture, without deviation."""
        latent = vae.encode(images).latent
        return latent, torch.zeros_like(latent)

    def process(self, scheduler: Config, base: str) -> Process:
        """Flow matching."""
        return read_flow(scheduler, base)

    def drop_projection(self, model: Any) -> None:
        """Its model calls the projection, so that none is one that does nothing."""
        model.caption_projection = nn.Identity()

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """Gemma's states and their mask, after the pipeline's own English instruction, which an
        empty prompt goes without.
        """
        states, mask, _, _ = pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=pipe.text_encoder.device,
            complex_human_instruction=_instruction(pipe) if any(prompts) else None,
        )
        return Conditioning(states, mask=mask)

    def set_text(
        self, pipe: Any, text_encoder: nn.Module, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """The one slot, as PixArt's. The text encoder's config, which is saved with it, holds how
        the pipeline's instruction starts: no adapter has read it in training, and it may fill all
        positions of an encoder, so that text encoders refuse it.
        """
        pipe.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)
        instruction = "\n".join(_instruction(pipe) or ())
        start = tokenizer(instruction, add_special_tokens=False, verbose=False).input_ids[:8]
        text_encoder.config.refused_start = start
        _repeat_in_order(pipe)

    def call_options(self, pipe: Any) -> dict[str, Any]:
        """The pipeline's own instruction is for its own text encoder."""
        start = getattr(pipe.text_encoder.config, "refused_start", None)
        return {} if start is None else dict(self.adapted_options)


def _repeat_in_order(pipe: Any) -> None:
    """Makes a pipeline that draws several pictures a prompt repeat a prompt's mask as it repeats
    its states. diffusers 0.42 gives the prompts a and b the states a a b b and the masks a b a b.
    """
    encode = type(pipe).encode_prompt.__get__(pipe)

    @functools.wraps(encode)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        call = inspect.signature(encode).bind(*args, **kwargs)
        num = call.arguments.pop("num_images_per_prompt", 1)
        rows = encode(**call.arguments)
        return tuple(None if part is None else part.repeat_interleave(num, 0) for part in rows)

    pipe.encode_prompt = encode_prompt


def _instruction(pipe: Any) -> list[str] | None:
    """What a pipeline puts before prompts by default."""
    found = inspect.signature(type(pipe).__call__).parameters.get("complex_human_instruction")
    return None if found is None else found.default
