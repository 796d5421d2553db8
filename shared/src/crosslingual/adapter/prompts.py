"""How the authors of an imported adapter hand prompts to their encoder.

Its config says it: `prompt_prefix`, words before each prompt; `drop_tokens`, how many of their
tokens' states the adapter is not given; `prefix_negative`, whether negative prompts have them too;
`mask_padding`, whether the encoder is told which tokens pad. Adapters that train here have none.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from crosslingual.frozen.encoders import MultilingualEncoder

Config = Mapping[str, Any]  # an adapter's


class NoAdapter(nn.Module):
    """Hands states on, where the adapter is the denoiser's own projection of them."""

    def forward(self, states: Tensor) -> tuple[Tensor, None]:
        """The states, and no pooled vector."""
        return states, None


class PromptTokenizer(PreTrainedTokenizerFast):
    """An encoder's tokenizer that puts the prefix before prompts. Stock pipelines pad prompts to
    its `model_max_length`, and negative prompts to the number of states, which tells them apart.
    """

    @classmethod
    def of(cls, tokenizer: Any, config: Config, *, cuts_mask: bool) -> "PromptTokenizer":
        """The tokenizer of an adapter's config. With `cuts_mask`, the mask that it gives has no
        tokens of the prefix either, for pipelines that hand it to the denoiser.

        Raises:
            ValueError: the tokenizer cannot be extended, or spells the prefix with another number
                of tokens than the adapter drops.
        """
        prefix, drop = config["prompt_prefix"], config["drop_tokens"]
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ValueError(
                f"the adapter's prompts start with {prefix!r}, which a {type(tokenizer).__name__} "
                "cannot add: name an encoder with a tokenizer.json"
            )
        num_tokens = len(tokenizer(prefix, add_special_tokens=False).input_ids)
        if num_tokens != drop:
            raise ValueError(
                f"the adapter leaves out {drop} tokens of {prefix!r}, and this tokenizer spells it "
                f"with {num_tokens}: name the encoder that the adapter was published with"
            )
        made = cls(
            tokenizer_object=tokenizer.backend_tokenizer,
            **tokenizer.special_tokens_map,
            model_max_length=tokenizer.model_max_length,
            model_input_names=["input_ids", "attention_mask"],
            padding_side="right",
            prompt_prefix=prefix,
            prefix_negative=config["prefix_negative"],
            cut_tokens=drop if cuts_mask else 0,
        )
        return made

    def __call__(self, text: Any = None, *args: Any, **options: Any) -> Any:
        """What the encoder's tokenizer gives for a text or a list of them."""
        length = options.get("max_length") or self.model_max_length
        if not self.init_kwargs["prefix_negative"] and length != self.model_max_length:
            return super().__call__(text, *args, **options)
        prefix, cut = self.init_kwargs["prompt_prefix"], self.init_kwargs["cut_tokens"]
        texts = prefix + text if isinstance(text, str) else [prefix + each for each in text]
        tokens = super().__call__(texts, *args, **options)
        if cut and isinstance(tokens["attention_mask"], Tensor):
            tokens["attention_mask"] = drop_columns(tokens["attention_mask"], cut)
        return tokens


def drop_columns(rows: Tensor, num: int) -> Tensor:
    """Rows (B, L, ...) without the columns 1 to `num`, which are the prefix's after the start."""
    return torch.cat([rows[:, :1], rows[:, 1 + num :]], dim=1) if num else rows


def num_read(config: Config, num_given: int, prompt_length: int | None) -> int:
    """Tokens that the encoder reads of `num_given` ids: `prompt_length`, which they are cut or
    padded to, or as many as are given.

    Raises:
        ValueError: the pipeline pads prompts to a length at which a prompt and a negative prompt
            cannot be told apart.
    """
    drop = config.get("drop_tokens", 0)
    if not drop:
        return prompt_length or num_given
    length = config["max_length"]
    shorter = length if config["prefix_negative"] else length - drop
    if prompt_length:
        return length if num_given == length else shorter
    if num_given not in (length, shorter):
        raise ValueError(
            f"the adapter reads prompts of {length} tokens: call the pipeline with "
            f"max_sequence_length={length}"
        )
    return num_given


def read_states(encoder: nn.Module, ids: Tensor, mask: Tensor, config: Config) -> Tensor:
    """The encoder's states of ids (B, L) as the adapter is given them, (B, L or fewer, C)."""
    drop = config.get("drop_tokens", 0)
    if not config.get("mask_padding", True):
        mask = torch.ones_like(mask)
    states = encoder(ids, attention_mask=mask).last_hidden_state
    has_prefix = drop and (config["prefix_negative"] or ids.shape[1] == config["max_length"])
    return drop_columns(states, drop) if has_prefix else states


@torch.no_grad()
def encode_texts(
    encoder: MultilingualEncoder, texts: list[str], config: Config, *, negative: bool = False
) -> Tensor:
    """The encoder's states of prompts or of negative prompts as the adapter is given them."""
    drop = config.get("drop_tokens", 0)
    if drop and negative and not config["prefix_negative"]:
        encoder = replace(encoder, max_length=encoder.max_length - drop)
    else:
        texts = [config.get("prompt_prefix", "") + text for text in texts]
    return read_states(encoder.model, *encoder.tokenize(texts), config)
