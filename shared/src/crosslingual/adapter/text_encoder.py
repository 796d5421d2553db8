"""The text encoder drop-in: a frozen multilingual encoder and an adapter as one
`pipe.text_encoder`.

Stock pipelines call it with token ids and, where its config says so, a mask, and take states from
the answer: the first entry (SD 1.x, 2.x, PixArt, Sana) or the last but one hidden state with the
pooled vector first (SDXL). Pipelines with several text encoders (SD 3, FLUX) get a `part` of it in
each slot. `attach` sets it and its tokenizer on a pipeline, so that ControlNet, img2img,
inpainting, LoRA and LCM pipelines on the same base work as they are; the adapter runs once a
prompt, never inside the UNet. A pipeline that holds it is saved and loaded by diffusers' own
`save_pretrained` and `from_pretrained`, where the method's package is installed.
"""

import copy
import pkgutil
import warnings
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import chain
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crosslingual.adapter.prompts import NoAdapter, num_read, read_states
from crosslingual.frozen.encoders import MultilingualEncoder, encoder_of
from crosslingual.frozen.weights import freeze

NOT_CLIP = (
    "the adapted text encoder has no layers of CLIP: leave out clip_skip, and load LoRA files "
    "without their text_encoder weights"
)


@dataclass
class AdaptedOutput(BaseModelOutputWithPooling):
    """The drop-in's answer. `text_embeds` is the pooled vector again, by the name that CLIP's text
    model with a projection gives it, and that compel reads.
    """

    text_embeds: Tensor | None = None


class NotClip:
    """Stands where pipelines look for CLIP's own model."""

    def __getattr__(self, name: str) -> Any:
        """Raises a ValueError that says what to leave out."""
        if name.startswith("__"):  # Python's own, as copying and pickling ask for
            raise AttributeError(name)
        raise ValueError(NOT_CLIP)


class OneLayer(tuple):
    """The adapter's states in the places of the last two layers, which pipelines ask for."""

    def __getitem__(self, index: Any) -> Any:
        """The states.

        Raises:
            ValueError: an earlier layer is asked for, as by `clip_skip`.
        """
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise ValueError(NOT_CLIP)
        return super().__getitem__(index)


def mask_padding(
    ids: Tensor, given: Tensor | None, pad: int, ends_with_padding: bool = False
) -> Tensor:
    """Which tokens (B, L) are read: none that pads, whatever mask is given. A prompt of padding
    alone is read as the given mask says.
    """
    is_text = ids.ne(pad)
    if ends_with_padding:  # the first one after the text is its end
        is_text |= F.pad(is_text, (1, -1), value=False)
    if given is None:
        return is_text.long()
    return given.to(ids.device) * (is_text | ~is_text.any(dim=1, keepdim=True))


def refuse_start(config: Any, ids: Tensor) -> None:
    """Refuses, by a ValueError, prompts (B, L) with what their pipeline puts before prompts by
    default: `refused_start` of the text encoder's config, which no adapter has read in training.
    """
    start, first = config.refused_start, ids[0].tolist()
    if start and start in (first[: len(start)], first[1 : 1 + len(start)]):
        raise ValueError(
            "the pipeline put its English instruction before the prompt, which the adapter has not "
            "learnt to read: call it with complex_human_instruction=None"
        )


def build_adapter(config: dict[str, Any]) -> nn.Module:
    """The adapter that an exported config describes, by its method's own
    `METHOD.method.build_adapter`.

    Raises:
        ValueError: no such method is installed here.
    """
    name = config["method"]
    installed = {entry.name: entry.module for entry in entry_points(group="crosslingual.methods")}
    if name not in installed:
        raise ValueError(
            f"the adapter is of the method {name!r}, which is not installed here: "
            f"pip install -e methods/{name}"
        )
    return pkgutil.resolve_name(f"{installed[name]}.method:build_adapter")(config)


class AdaptedTextEncoderConfig(PreTrainedConfig):
    """What rebuilds the drop-in, and what stock pipelines ask a text encoder's config."""

    model_type = "crosslingual_adapted_text_encoder"

    def __init__(
        self,
        encoder_config: dict[str, Any] | None = None,
        adapter_config: dict[str, Any] | None = None,
        pad_token_id: int | None = None,
        projection_dim: int | None = None,
        prompt_length: int | None = None,
        use_attention_mask: bool = True,
        part: dict[str, Any] | None = None,
        ends_with_padding: bool = False,
        refused_start: list[int] | None = None,
        **others: Any,
    ):
        """transformers wants each to have a default.

        Args:
            encoder_config: the encoder's own (`model_type` and its shape).
            adapter_config: the adapter's, which names its method.
            pad_token_id: of the tokenizer; what it pads is masked where no mask is given.
            projection_dim: the pooled vector's width, None where the base takes none.
            prompt_length: tokens that the encoder reads of a prompt, as in training; None where a
                mask tells the denoiser which tokens count, so that it reads all that it is given.
            use_attention_mask: stock pipelines hand over the mask only then.
            part: what it answers where a pipeline has several text encoders: `first`, and the
                ranges `tokens`, `channels` and `pooled` of `AdaptedTextEncoder.part`.
            ends_with_padding: whether a prompt's last token is the one that pads as well.
            refused_start: tokens that no prompt may start with, for `refuse_start`; None where the
                pipeline puts nothing before prompts.
            others: transformers' own.
        """
        self.encoder_config, self.adapter_config = encoder_config, adapter_config
        self.projection_dim, self.use_attention_mask = projection_dim, use_attention_mask
        self.prompt_length, self.part = prompt_length, part
        self.ends_with_padding, self.refused_start = ends_with_padding, refused_start
        super().__init__(pad_token_id=pad_token_id, **others)


class AdaptedTextEncoder(PreTrainedModel):
    """Encoder, then adapter, called as diffusers calls a CLIP text model."""

    config_class = AdaptedTextEncoderConfig

    def __init__(self, config: AdaptedTextEncoderConfig):
        """Builds both without weights."""
        super().__init__(config)
        shape = dict(config.encoder_config)
        self.encoder = encoder_of(AutoConfig.for_model(shape.pop("model_type"), **shape))
        # only a format of prompts brings the drop-in where an adapter is a projection
        is_projection = config.adapter_config.get("replaces_projection")
        self.adapter = NoAdapter() if is_projection else build_adapter(config.adapter_config)
        self._latest: dict[str, Any] = {}  # the parts of one encoder share it
        self.post_init()

    @classmethod
    def of(
        cls,
        encoder: MultilingualEncoder,
        adapter: nn.Module,
        config: dict[str, Any],
        prompt_length: int | None,
    ) -> "AdaptedTextEncoder":
        """The drop-in of modules that exist: an encoder, and an adapter with its config. It reads
        `prompt_length` tokens of a prompt, or all.
        """
        tokenizer = encoder.tokenizer
        described = AdaptedTextEncoderConfig(
            encoder.model.config.to_dict(),
            config,
            int(tokenizer.pad_token_id),
            config["pooled_width"],
            prompt_length,
            ends_with_padding=tokenizer("a").input_ids[-1] == tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id or tokenizer.sep_token_id,
        )
        return cls._around(described, encoder.model, freeze(adapter))

    @classmethod
    def _around(
        cls, config: AdaptedTextEncoderConfig, encoder: nn.Module, adapter: nn.Module
    ) -> "AdaptedTextEncoder":
        with torch.device("meta"):
            made = cls(config)
        made.encoder, made.adapter = encoder, adapter
        return made.eval()

    def part(
        self,
        first: str,
        *,
        tokens: slice = slice(None),
        channels: slice = slice(None),
        pooled: slice = slice(None),
        completes: bool = False,
    ) -> "AdaptedTextEncoder":
        """A text encoder with the same modules for one slot of a pipeline that has several. Each is
        saved by itself. Of slots that are asked one after the other for the same prompt, the first
        one alone runs the modules.

        Args:
            first: `states` or `pooled`: the first entry of the answer.
            tokens: the states that it gives.
            channels: of the states.
            pooled: the part of the pooled vector that it gives.
            completes: whether it gives the rest of what the first slot gave a part of, so that
                both have to read the same prompt.
        """
        ranges = {"tokens": tokens, "channels": channels, "pooled": pooled}
        config = copy.deepcopy(self.config)
        config.part = {"first": first, **{n: [r.start, r.stop] for n, r in ranges.items()}}
        config.part["completes"] = completes
        made = self._around(config, self.encoder, self.adapter)
        made._latest = self._latest
        return made

    @property
    def dtype(self) -> torch.dtype:
        """Of the adapter's weights, which is that of the states."""
        return next(chain(self.adapter.parameters(), self.encoder.parameters())).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(chain(self.adapter.parameters(), self.encoder.parameters())).device

    @property
    def text_model(self) -> NoReturn:
        """What pipelines ask for CLIP's own model, for `clip_skip` and a LoRA's weights: a
        ValueError, which a pipeline that diffusers loads by itself gives too.
        """
        raise ValueError(NOT_CLIP)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def _run(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """States and pooled vector of tokens; those of the latest prompt are not computed again
        for the next slot of a pipeline.
        """
        part, latest = self.config.part, self._latest
        if latest and torch.equal(ids, latest["ids"]) and torch.equal(mask, latest["mask"]):
            if latest["states"].dtype == self.dtype:
                return latest["states"], latest["pooled"]
        elif latest and latest["by"] != id(self) and part["completes"]:
            raise ValueError(
                "the text encoders of this pipeline were given different prompts, and the adapter "
                "fills all of them from one: leave out prompt_2 and prompt_3, and a "
                "max_sequence_length that cuts the prompt for one of them"
            )
        states = read_states(self.encoder, ids, mask, self.config.adapter_config)
        states, pooled = self.adapter(states.to(self.dtype))
        if part:
            latest.update(by=id(self), ids=ids, mask=mask, states=states, pooled=pooled)
        return states, pooled

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = True,
    ) -> AdaptedOutput | tuple[Tensor, ...]:
        """Answers with the states (B, L, D) first, or, where the base wants a pooled vector, that
        (B, P) first. `position_ids` count from 0 in order, as CLIP's do; the encoder has its own.

        Raises:
            ValueError: positions in another order, or attention weights are asked for; or the
                prompts start as `refuse_start` says.
        """
        refuse_start(self.config, input_ids)
        length = input_ids.shape[1]
        if position_ids is not None and position_ids.flatten().tolist() != list(range(length)):
            raise ValueError("the encoder has positions of its own: leave out position_ids")
        if output_attentions:
            raise ValueError("the adapted text encoder gives no attention weights")
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            attention_mask = None  # the denoiser's, without the tokens of a prefix
        attention_mask = mask_padding(
            input_ids, attention_mask, self.config.pad_token_id, self.config.ends_with_padding
        )
        # Cuts or pads prompts to the length of training, as the tokenizer does: stock pipelines pad
        # a negative prompt to the number of states, which is not that of tokens in all methods.
        read = num_read(self.config.adapter_config, length, self.config.prompt_length)
        surplus = length - read
        ids = F.pad(input_ids, (0, -surplus), value=self.config.pad_token_id)
        if surplus > 0:  # what is cut keeps its end token
            is_cut = attention_mask[:, -surplus].bool()
            ids[:, -1] = torch.where(is_cut, self.config.eos_token_id, ids[:, -1])
            if is_cut.any():
                warnings.warn(
                    f"{int(is_cut.sum())} of {len(ids)} prompts are cut to the {read} tokens that "
                    "the adapter reads",
                    stacklevel=2,
                )
        mask = F.pad(attention_mask, (0, -surplus))
        states, pooled = self._run(ids, mask)
        # SDXL's pipeline takes entry 0 where it is a matrix for the pooled vector and
        # hidden_states[-2] for the states.
        first = states if pooled is None else pooled
        if part := self.config.part:
            states = states[:, slice(*part["tokens"]), slice(*part["channels"])]
            pooled = pooled[:, slice(*part["pooled"])]
            first = {"states": states, "pooled": pooled}[part["first"]]
        if not return_dict:
            return (first,)
        hidden_states = OneLayer((states, states)) if output_hidden_states else None
        return AdaptedOutput(
            last_hidden_state=first,
            pooler_output=pooled,
            hidden_states=hidden_states,
            text_embeds=pooled,
        )
