"""Stable Diffusion 3 and 3.5: a transformer with one attention over text and picture, and flow
matching. It reads the states of two CLIP text encoders, side by side and then T5's, and the pooled
vectors of both CLIPs.

Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", arXiv
2403.03206.
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
from crosslingual.frozen.schedule import Process, read_flow

T5_LENGTH = 256  # tokens of T5's states by default, after CLIP's


def t5_length(pipe: Any) -> int:
    """Tokens of T5's states of a prompt: those of stock pipelines, or the fewer ones that the
    config of a base's T5 names (`n_positions`), as of a base trained on short prompts.
    """
    config = getattr(pipe.components.get("text_encoder_3"), "config", None)
    return min(T5_LENGTH, getattr(config, "n_positions", T5_LENGTH))


class JointDenoiser(Denoiser):
    """A model whose attention reads text and picture together. Padding counts: the stock pipelines
    give no mask.
    """

    num_positions = 0  # of the picture, in the latest call

    def cross_attentions(self) -> list[tuple[str, nn.Module]]:
        """None."""
        return []

    def picture_states(self, module: nn.Module, output: Any) -> Tensor:
        """Blocks answer (text, picture), and attentions (picture, text), or both as one, text
        first.
        """
        if isinstance(output, Tensor):
            return output[:, -self.num_positions :]
        return output[1 if hasattr(module, "attn") else 0]


class SD3Denoiser(JointDenoiser):
    """An `SD3Transformer2DModel`."""

    def _call(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        height, width = latents.shape[-2:]
        self.num_positions = height * width // self.model.config.patch_size**2
        return self.model(
            latents,
            text.states,
            text.pooled,
            timesteps,
            return_dict=False,
        )[0]

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks: 24 in the medium models, 38 in the large one."""
        return list(self.model.transformer_blocks)


class StableDiffusion3(Family):
    """SD 3 and 3.5."""

    name, part, model_class = "sd3", "transformer", "SD3Transformer2DModel"
    denoiser, has_cross_attention = SD3Denoiser, False

    def widths(self, config: Config) -> tuple[int, int | None, int]:
        """T5's width, and that of both CLIPs' pooled vectors together."""
        width = int(config["joint_attention_dim"])
        return width, int(config["pooled_projection_dim"]), width

    def text(self, config_of: PartConfig) -> TextShape:
        """CLIP's tokens, then T5's."""
        width, pooled_width, inner_width = self.widths(config_of(self.part))
        length = int(config_of("text_encoder").get("max_position_embeddings", 77)) + T5_LENGTH
        return TextShape(width, pooled_width, length, inner_width, (width,))

    def process(self, scheduler: Config, base: str) -> Process:
        """Flow matching."""
        return read_flow(scheduler, base)

    @torch.no_grad()
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """The states of all three encoders, and both pooled vectors side by side."""
        if pipe.text_encoder_3 is None:
            raise ValueError(
                "this base was saved without its third text encoder (T5), which the English states "
                "need: use the whole base"
            )
        states, _, pooled, _ = pipe.encode_prompt(
            prompts,
            None,
            None,
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=t5_length(pipe),
        )
        return Conditioning(states, pooled)

    def call_options(self, pipe: Any) -> dict[str, Any]:
        """How many tokens T5 reads, where stock pipelines read more by default."""
        length = t5_length(pipe)
        return {"max_sequence_length": length} if length < T5_LENGTH else {}

    def set_text(
        self, pipe: Any, text_encoder: Any, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """All three slots, so that the denoiser sees the text encoder's states as they are: the
        first two slots give the halves of the first state and of the pooled vector, and the third
        the other states.
        """
        width, pooled_width, _ = self.widths(pipe.transformer.config)

        def half(channels: slice, pooled: slice, completes: bool) -> Any:
            return text_encoder.part(
                "pooled",
                tokens=slice(0, 1),
                channels=channels,
                pooled=pooled,
                completes=completes,
            )

        pipe.register_modules(
            text_encoder=half(slice(width // 2), slice(pooled_width // 2), False),
            text_encoder_2=half(slice(width // 2, None), slice(pooled_width // 2, None), True),
            text_encoder_3=text_encoder.part("states", tokens=slice(1, None), completes=True),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            tokenizer_3=tokenizer,
        )
        pipe.tokenizer_max_length = tokenizer.model_max_length  # else that of the base's tokenizer
