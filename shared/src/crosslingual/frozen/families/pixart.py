"""PixArt-alpha and -sigma: a transformer whose cross-attention reads T5's states under a mask,
after a projection of its own.

Chen et al., "PixArt-alpha", arXiv 2310.00426; "PixArt-Sigma", arXiv 2403.04692.
"""

import functools
import inspect
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

LENGTHS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}


class PixArtDenoiser(Denoiser):
    """A `PixArtTransformer2DModel`; alpha at 1024 pixels is told resolution and aspect ratio."""

    def _call(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        states = text.states
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.model.use_additional_conditions:
            sizes["resolution"] = states.new_full((len(states), 2), float(self.resolution))
            sizes["aspect_ratio"] = states.new_ones(len(states), 1)
        predicted = self.model(
            latents.contiguous(),
            states,
            timesteps,
            sizes,
            encoder_attention_mask=text.mask,
            return_dict=False,
        )[0]
        return predicted[:, : latents.shape[1]]  # the rest is a learned variance

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, each of which answers the picture's tokens."""
        return list(self.model.transformer_blocks)

    def text_projection(self) -> nn.Module:
        """The projection of captions."""
        return self.model.caption_projection


class PixArt(Family):
    """PixArt-alpha and -sigma. An adapter takes the place of the projection of captions."""

    name, part, model_class = "pixart", "transformer", "PixArtTransformer2DModel"
    denoiser, projection, takes_mask = PixArtDenoiser, "caption_projection", True
    adapted_options = {"clean_caption": False}  # the pipeline's cleaning deletes Han characters

    def widths(self, config: Config) -> tuple[int, int | None, int]:
        """T5's width, and that of the transformer, which the projection of captions gives."""
        inner_width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        return int(config["caption_channels"]), None, inner_width

    def text(self, config_of: PartConfig) -> TextShape:
        """Alpha's pipeline pads prompts to 120 tokens, sigma's to 300."""
        width, pooled_width, inner_width = self.widths(config_of(self.part))
        length = LENGTHS.get(config_of("pipeline")["_class_name"], 300)
        return TextShape(width, pooled_width, length, inner_width, (width,), takes_mask=True)

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """T5's states and their mask. Captions are read as they are: `clean_caption` would delete
        Han characters.
        """
        states, mask, _, _ = pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=pipe.text_encoder.device,
            clean_caption=False,
        )
        return Conditioning(states, mask=mask)

    def set_text(
        self, pipe: Any, text_encoder: nn.Module, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """The one slot. The pipeline takes the first entry of the answer for the states, as many as
        there are ids, and the tokenizer's mask.
        """
        pipe.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)
        _leave_prompts_uncleaned(pipe)

    def prompt(self, text: str) -> str:
        """In small letters."""
        return text.lower().strip()

    def set_projection(self, pipe: Any, projection: nn.Module, encoder_width: int) -> None:
        """A projection of diffusers' own class with the adapter's weights, so that the saved
        pipeline loads without the adapter's package.
        """
        from diffusers.models.embeddings import PixArtAlphaTextProjection

        transformer = pipe.transformer
        with torch.random.fork_rng(devices=[]):  # the caller's
            own = PixArtAlphaTextProjection(encoder_width, self.widths(transformer.config)[2])
        own.load_state_dict(projection.state_dict())
        own.to(transformer.device, transformer.dtype).requires_grad_(False)
        transformer.caption_projection = own
        transformer.register_to_config(caption_channels=encoder_width)


def _leave_prompts_uncleaned(pipe: Any) -> None:
    """Makes a pipeline read prompts without cleaning, which it does by default where bs4 and ftfy
    are installed: it deletes Han characters.
    """
    encode = type(pipe).encode_prompt.__get__(pipe)

    @functools.wraps(encode)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        call = inspect.signature(encode).bind(*args, **kwargs)
        call.arguments["clean_caption"] = False
        return encode(*call.args, **call.kwargs)

    pipe.encode_prompt = encode_prompt
