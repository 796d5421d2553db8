"""The text encoder drop-in: a frozen multilingual encoder and an adapter as one
`pipe.text_encoder`.

Stock pipelines call it with token ids and, where its config says so, a mask, and take states from
the answer: the first entry (SD 1.x, 2.x) or the last but one hidden state with the pooled vector
first (SDXL). `attach` sets it and its tokenizer on a pipeline, so that ControlNet, img2img,
inpainting, LoRA and LCM pipelines on the same base work as they are; the adapter runs once a
prompt, never inside the UNet.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crosslingual.encoders import MultilingualEncoder
from crosslingual.weights import freeze


class AdaptedTextEncoder(nn.Module):
    """Encoder, then adapter, called as diffusers calls a CLIP text model."""

    def __init__(self, encoder: MultilingualEncoder, adapter: nn.Module, pooled_width: int | None):
        """`adapter` maps states (B, L, C) to (states (B, L, D), pooled (B, P) or None)."""
        super().__init__()
        self.encoder = encoder.model
        self.adapter = freeze(adapter)
        self.pad_token_id = int(encoder.tokenizer.pad_token_id)
        self.config = SimpleNamespace(use_attention_mask=True, projection_dim=pooled_width)

    @property
    def dtype(self) -> torch.dtype:
        """Of the adapter's weights, which is that of the states."""
        return next(self.adapter.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.adapter.parameters()).device

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Answers with the states (B, L, D) first, or, where the base wants a pooled vector, that
        (B, P) first.
        """
        mask = input_ids.ne(self.pad_token_id).long() if attention_mask is None else attention_mask
        states = self.encoder(input_ids, attention_mask=mask).last_hidden_state
        states, pooled = self.adapter(states.to(self.dtype))
        # SDXL's pipeline takes entry 0 where it is a matrix for the pooled vector and
        # hidden_states[-2] for the states.
        first = states if pooled is None else pooled
        if not return_dict:
            return (first,)
        hidden_states = (states, states) if output_hidden_states else None
        return BaseModelOutputWithPooling(
            last_hidden_state=first, pooler_output=pooled, hidden_states=hidden_states
        )


def attach(
    pipe: Any,
    encoder: MultilingualEncoder,
    adapter: nn.Module,
    *,
    width: int,
    pooled_width: int | None,
) -> Any:
    """Sets the drop-in and its tokenizer on a diffusers pipeline and returns the pipeline.

    Args:
        pipe: any pipeline whose UNet has the base's cross-attention width.
        encoder: the frozen multilingual encoder.
        adapter: maps its states to the UNet's.
        width: the adapter's output width.
        pooled_width: the pooled vector's, None where the base takes none.

    Raises:
        ValueError: the adapter was made for another family of bases.
    """
    wanted = pipe.unet.config.cross_attention_dim
    takes_pooled = pipe.unet.config.addition_embed_type == "text_time"
    if wanted != width or takes_pooled != (pooled_width is not None):
        raise ValueError(
            f"the adapter gives states of width {width} and a pooled vector of width "
            f"{pooled_width}, but this base's UNet takes width {wanted} "
            f"{'with' if takes_pooled else 'without'} a pooled vector: use the adapter's base"
        )
    dropin = AdaptedTextEncoder(encoder, adapter, pooled_width).to(
        pipe.unet.device, pipe.unet.dtype
    )
    tokenizer = encoder.tokenizer
    tokenizer.model_max_length = encoder.max_length
    if takes_pooled:
        pipe.text_encoder, pipe.tokenizer = None, None
        pipe.text_encoder_2, pipe.tokenizer_2 = dropin, tokenizer
        # The empty negative prompt goes through the adapter, as in training, and not to zeros.
        pipe.register_to_config(force_zeros_for_empty_prompt=False)
    else:
        pipe.text_encoder, pipe.tokenizer = dropin, tokenizer
    return pipe


@torch.no_grad()
def encode_prompts(
    encoder: MultilingualEncoder,
    adapter: nn.Module,
    prompts: list[str],
    negative_prompts: list[str] | None = None,
) -> dict[str, Tensor]:
    """Keyword arguments for a pipeline's call: `prompt_embeds`, `negative_prompt_embeds` and, with
    a pooled vector, its pair.

    The encoder may be dropped afterwards: nothing of it is needed to sample.
    """
    result = {}
    for prefix, texts in (("", prompts), ("negative_", negative_prompts or [""] * len(prompts))):
        states, _ = encoder.encode(texts)
        states, pooled = adapter(states.to(next(adapter.parameters()).dtype))
        result[f"{prefix}prompt_embeds"] = states
        if pooled is not None:
            result[f"{prefix}pooled_prompt_embeds"] = pooled
    return result
