"""The frozen text encoders: XLM-R and its kin, the text halves of CLIPs, (u)mT5, and the hidden
states of decoder-only language models.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.features.ragged import Ragged
from crosslingual.frozen.forms import CLASSES, POOLED, READS_PADDING, offer_conversion
from crosslingual.frozen.shapes import model_config, published_shape
from crosslingual.frozen.tokens import tokenize
from crosslingual.frozen.weights import load_frozen, open_tokenizer, resolve

MAX_LENGTH = 77  # tokens of a prompt where nothing else is asked for, as CLIP's
ALIKE_PADDING = {"xlm-roberta", "xlm-roberta-xl"}  # types whose padding states are equal
TEXTS_AT_A_TIME = 64


def _encoder_class(config: Any) -> tuple[type, dict[str, bool]]:
    """The class of a config's encoder, and the argument that leaves a pooler out, since token
    states do not pass it.
    """
    import transformers

    if config.model_type not in CLASSES:
        raise ValueError(
            f"no text encoder of type {config.model_type!r} is known; there are "
            f"{', '.join(CLASSES)}"
        )
    name = CLASSES[config.model_type]
    return getattr(transformers, name), {"add_pooling_layer": False} if name in POOLED else {}


def encoder_shape(name: str, revision: str | None = None) -> tuple[int, int]:
    """Width of an encoder's token states, and a prompt's tokens by default, without its weights."""
    with offering_conversion(name, revision):
        config = encoder_config(name, revision)
        _encoder_class(config)
        known = published_shape(name, "tokenizer")
        if known is None:
            tokenizer = open_tokenizer(name, revision)
            known = {"model_max_length": tokenizer.model_max_length}
    return state_width(config), min(MAX_LENGTH, int(known["model_max_length"]))


def known_length(name: str, width: int) -> int | None:
    """A prompt's tokens by `encoder_shape`, for an adapter that is imported with an encoder; None
    where that cannot be read without a network: the encoder is no folder and not well known.

    Raises:
        ValueError: its states are not `width` wide, as the adapter reads; or it is a published
            model to convert first.
    """
    if published_shape(name, "encoder") is None and not Path(resolve(name)).is_dir():
        return None
    found, length = encoder_shape(name)
    check_width(name, found, width)
    return length


def check_width(name: str, found: int, wanted: int) -> None:
    """Refuses, by a ValueError, an encoder whose states are of another width than an adapter
    reads.
    """
    if found != wanted:
        raise ValueError(
            f"the adapter reads states of width {wanted} and {name} gives {found}: name the "
            "encoder that it was trained on"
        )


def encoder_config(name: str, revision: str | None = None) -> Any:
    """A text encoder's config, by `model_config`."""
    return model_config(name, revision, "encoder", "text encoder")


def state_width(config: Any) -> int:
    """Width of an encoder's token states by its config, after a projection where there is one."""
    known = config.to_dict()
    return int(known.get("project_dim") or known.get("d_model") or config.hidden_size)


def encoder_of(config: Any) -> nn.Module:
    """A text encoder of a config's shape, without its weights and without a pooler."""
    model_class, arguments = _encoder_class(config)
    return _as_trained(model_class(config, **arguments))


def _as_trained(model: nn.Module) -> nn.Module:
    """A model that attends to the tokens that it attended to in training: without a mask, where it
    had none.
    """
    if model.config.model_type in READS_PADDING:
        model.register_forward_pre_hook(_without_mask, with_kwargs=True)
    return model


def _without_mask(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return args, {**kwargs, "attention_mask": None}


@contextmanager
def offering_conversion(name: str, revision: str | None) -> Iterator[None]:
    """Says of a published model that is not read as it is by which command it is converted."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise offer_conversion(name, revision, error) from error


def existing_encoder(name: str, starts_from: str | None) -> str:
    """The encoder to count: `name`, or while an earlier stage has not made that folder yet, the
    encoder that it starts from and has the shape of.
    """
    if starts_from is None or Path(resolve(name)).is_dir():
        return name
    return starts_from


def encoder_on_meta(name: str, revision: str | None = None) -> int:
    """Parameters of a text encoder, from its config alone."""
    with torch.device("meta"):
        model = encoder_of(encoder_config(name, revision))
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass
class MultilingualEncoder:
    """A frozen text encoder and its tokenizer.

    Attributes:
        name: the id or folder it was loaded from.
        model: the encoder; called with ids and mask it gives token states (B, L, D).
        tokenizer: pads to `max_length` on the right.
        max_length: tokens of a prompt, start and end included.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    max_length: int

    @cached_property
    def width(self) -> int:
        """D, the size of a token state."""
        return state_width(self.model.config)

    def tokenize(self, texts: list[str], padding: str = "max_length") -> tuple[Tensor, Tensor]:
        """Ids and mask, both (B, L), on the model's device.

        Args:
            texts: longer ones are cut to `max_length` with their end token kept, and reported.
            padding: to `max_length`, or to the `longest` text; encoders that read padding get all.
        """
        if self.model.config.model_type in READS_PADDING:
            padding = "max_length"
        tokens = tokenize(self.tokenizer, texts, self.max_length, padding).to(self.model.device)
        return tokens.input_ids, tokens.attention_mask

    @torch.no_grad()
    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Last hidden states (B, max_length, D) of prompts in any language, and their mask (B,
        max_length).

        XLM-R's padding has one position, and nothing attends to it: its states are equal, and one
        of them is computed, for texts of similar length at a time.
        """
        ids, mask = self.tokenize(texts)
        if self.model.config.model_type not in ALIKE_PADDING:
            return self.model(ids, attention_mask=mask).last_hidden_state, mask
        lengths, states = mask.sum(dim=1), None
        for rows in lengths.argsort(stable=True).split(TEXTS_AT_A_TIME):
            kept = min(int(lengths[rows].max()) + 1, self.max_length)
            found = self.model(ids[rows, :kept], attention_mask=mask[rows, :kept]).last_hidden_state
            if states is None:
                states = found.new_empty(*ids.shape, found.shape[-1])
            states[rows, :kept] = found
            states[rows, kept:] = found[:, -1:]
        return states, mask

    @torch.no_grad()
    def encode_packed(self, texts: list[str]) -> Ragged:
        """Last hidden states of the texts' own tokens, start and end included, (T, D) of all texts
        one after another, so that no padding beyond the longest text is computed or kept.
        """
        ids, mask = self.tokenize(texts, padding="longest")
        states = self.model(ids, attention_mask=mask).last_hidden_state
        return Ragged(states[mask.bool()], mask.sum(dim=1))


def load_multilingual_encoder(
    name: str,
    revision: str | None = None,
    max_length: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> MultilingualEncoder:
    """Loads a text encoder (a folder, a hub id or WORLD:NAME such as `testbed:xlm-r`) with its
    tokenizer. A prompt has `max_length` tokens; the tokenizer's own limit, and at most 77, if None.
    """
    with offering_conversion(name, revision):
        model_class, arguments = _encoder_class(encoder_config(name, revision))
        model = load_frozen(model_class, name, revision=revision, dtype=dtype, **arguments)
    tokenizer = open_tokenizer(name, revision)
    if len(tokenizer) < 256:
        raise ValueError(
            f"the tokenizer of {name} was read with {len(tokenizer)} entries: install protobuf"
        )
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:  # of language models; padding is masked
        tokenizer.pad_token = tokenizer.eos_token
    length = max_length or min(MAX_LENGTH, int(tokenizer.model_max_length))
    return MultilingualEncoder(name, _as_trained(model), tokenizer, length)
