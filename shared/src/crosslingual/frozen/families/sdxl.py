"""SDXL: a UNet that reads the states of two text encoders side by side, the second one's pooled
vector, and the sizes and crops of the pictures it was trained on.

Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", arXiv
2307.01952.
"""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.denoiser import Conditioning, Config, PartConfig, TextShape
from crosslingual.frozen.families.sd import StableDiffusion, UNetDenoiser

NUM_SIZES = 6  # height and width of the original, top and left of the crop, height and width


class SDXLDenoiser(UNetDenoiser):
    """SDXL's UNet, told that every picture is whole and of `resolution` x `resolution` pixels."""

    def _added(self, text: Conditioning) -> dict[str, Tensor]:
        edge = float(self.resolution)
        sizes = torch.tensor([edge, edge, 0.0, 0.0, edge, edge], device=text.states.device)
        return {"text_embeds": text.pooled, "time_ids": sizes.expand(len(text.states), -1)}


class StableDiffusionXL(StableDiffusion):
    """SDXL and models of its shape."""

    name, denoiser, can_zero_empty = "sdxl", SDXLDenoiser, True

    def recognises(self, config: Config) -> bool:
        """A UNet that takes a pooled text vector with sizes."""
        is_unet = config.get("_class_name") == self.model_class
        return is_unet and config.get("addition_embed_type") == "text_time"

    def widths(self, config: Config) -> tuple[int, int | None, int]:
        """The layer that embeds the pooled vector reads the embedded sizes as well."""
        width = int(config["cross_attention_dim"])
        embedded = NUM_SIZES * int(config["addition_time_embed_dim"])
        return width, int(config["projection_class_embeddings_input_dim"]) - embedded, width

    def text(self, config_of: PartConfig) -> TextShape:
        """The states of both text encoders side by side."""
        unet = config_of(self.part)
        encoders = [config_of(name) for name in ("text_encoder", "text_encoder_2")]
        embedded = 4 * unet["block_out_channels"][0]  # as wide as the UNet's time embedding
        return (
            super()
            .text(config_of)
            ._replace(
                part_widths=tuple(int(encoder["hidden_size"]) for encoder in encoders),
                added_embedding=(int(unet["projection_class_embeddings_input_dim"]), embedded),
            )
        )

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """The states of both encoders side by side, and the second one's pooled vector."""
        states, _, pooled, _ = pipe.encode_prompt(
            prompts,
            device=pipe.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Conditioning(states, pooled)

    def set_text(
        self, pipe: Any, text_encoder: nn.Module, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """The second slot alone. The pipeline takes `hidden_states[-2]` of the answer for the
        states, and its first entry, a matrix, for the pooled vector.
        """
        pipe.register_modules(text_encoder=None, tokenizer=None)
        pipe.register_modules(text_encoder_2=text_encoder, tokenizer_2=tokenizer)
        # Without zeros the empty negative prompt goes through the adapter, as in training.
        pipe.register_to_config(force_zeros_for_empty_prompt=zeros_for_empty)
        _refuse_second_prompt(pipe)


def _refuse_second_prompt(pipe: Any) -> None:
    """Makes a pipeline whose first text encoder is gone refuse `prompt_2`, which it never reads."""
    check = type(pipe).check_inputs.__get__(pipe)

    @functools.wraps(check)
    def check_inputs(*args: Any, **kwargs: Any) -> None:
        given = inspect.signature(check).bind(*args, **kwargs).arguments
        for name in ("prompt", "negative_prompt"):
            if given.get(f"{name}_2") not in (None, given.get(name)):
                raise ValueError(
                    f"one text encoder reads all prompts here: leave out {name}_2, and say all in "
                    f"{name}"
                )
        check(*args, **kwargs)

    pipe.check_inputs = check_inputs
