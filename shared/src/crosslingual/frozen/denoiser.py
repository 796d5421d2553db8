"""What a family of diffusion bases answers: the classes that `frozen/families/NAME.py` extends.

A family is one kind of denoising model together with the text conditioning that it takes. All
that differs between kinds is answered by its file, so that methods, features and pipelines hold
no case for any of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from crosslingual.frozen.schedule import Latents, Process, read_diffusion

# B rows, L tokens of a prompt, D width of their states, P width of the pooled vector,
# C channels of the latents

Config = Mapping[str, Any]
PartConfig = Callable[[str], Config]  # the config of a pipeline's part, by the part's name


class Conditioning(NamedTuple):
    """What a denoiser sees of prompts.

    Attributes:
        states: of the tokens, (B, L, D).
        pooled: a vector for each prompt (B, P), None where the base takes none.
        mask: which tokens count (B, L), None where the base takes no mask.
    """

    states: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None


class TextShape(NamedTuple):
    """The text conditioning of a base.

    Attributes:
        width: D of the states that the denoiser takes.
        pooled_width: P, None where it takes no pooled vector.
        length: L of the stock pipeline's prompts.
        inner_width: of the states after the denoiser's own projection of them, which an adapter
            may replace; `width` where the denoiser has no such projection.
        part_widths: of the stock text encoders whose states stand side by side in `width`, in the
            pipeline's order; one entry where there is one encoder.
        takes_mask: whether the denoiser is told which tokens count.
        added_embedding: input and output width of the layer that embeds the pooled vector together
            with the sizes of the picture, None where there is none.
    """

    width: int
    pooled_width: int | None
    length: int
    inner_width: int
    part_widths: tuple[int, ...]
    takes_mask: bool = False
    added_embedding: tuple[int, int] | None = None


@dataclass(eq=False)
class Denoiser(ABC):
    """A denoising model and how it is called, from `Base.load_denoiser` or `Base.wrap_denoiser`.

    Attributes:
        model: diffusers' model, or the DeepSpeed engine around it where the model itself trains.
        resolution: edge of the pictures in pixels, which some models are told.
        mixed_precision: `bf16` for torch's autocast, or `no`.
    """

    model: Any
    resolution: int
    mixed_precision: str = "no"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def autocast(self) -> AbstractContextManager:
        """bf16 where `mixed_precision` asks for it."""
        if self.mixed_precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def predict(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        """The prediction (B, C, h, w) that the schedule's target is compared with, for noisy
        latents (B, C, h, w) and timesteps (B,).
        """
        with self.autocast():
            return self._call(latents, timesteps, Conditioning(*text))

    @abstractmethod
    def _call(self, latents: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
        """Calls the model with the inputs that its family has."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The blocks in the order in which they run, for feature distillation; `picture_states`
        reads what one answers.
        """

    def attentions(self) -> list[nn.Module]:
        """All attention layers in the order of the model, for distillation of what they answer."""
        ends = ("attn", "attn1", "attn2")
        return [m for name, m in self.model.named_modules() if name.rsplit(".", 1)[-1] in ends]

    def picture_states(self, module: nn.Module, output: Any) -> Tensor:
        """The picture's states in the answer of one of `blocks` or `attentions`, without those of
        text, whose number differs between encoders.
        """
        return output[0] if isinstance(output, tuple) else output

    def cross_attentions(self) -> list[tuple[str, nn.Module]]:
        """Names, such as `transformer_blocks.0.attn2`, and modules of the layers that read the
        text, as they run; empty where attention is joint. Each is diffusers' `Attention`.
        """
        return [pair for pair in self.model.named_modules() if pair[0].endswith("attn2")]

    def text_projection(self) -> nn.Module:
        """What text states pass before the cross-attentions read them."""
        return nn.Identity()


class Family(ABC):
    """One kind of base.

    Attributes:
        name: such as `sd`, which adapters' configs hold.
        part: the pipeline's part that denoises.
        model_class: its class in diffusers.
        denoiser: the model with its calls.
        projection: the denoiser's own layer that projects text states, None where it has none.
        packing: positions of a latent that the denoiser takes as one, side by side in its channels.
        takes_mask: whether the denoiser is told which tokens count. Its pipelines then want as many
            states as there are tokens.
        has_cross_attention: whether text is read by layers of its own, `cross_attentions`, or in
            one attention with the picture.
        can_zero_empty: whether its pipelines can give zeros for an empty negative prompt.
        adapted_options: what its pipelines have to be called with where an adapter reads prompts.
    """

    name: ClassVar[str]
    part: ClassVar[str]
    model_class: ClassVar[str]
    denoiser: ClassVar[type[Denoiser]]
    projection: ClassVar[str | None] = None
    packing: ClassVar[int] = 1
    takes_mask: ClassVar[bool] = False
    has_cross_attention: ClassVar[bool] = True
    can_zero_empty: ClassVar[bool] = False
    adapted_options: ClassVar[Mapping[str, Any]] = {}

    def recognises(self, config: Config) -> bool:
        """Whether a denoiser of this config is of this family."""
        return config.get("_class_name") == self.model_class

    @abstractmethod
    def widths(self, config: Config) -> tuple[int, int | None, int]:
        """D, P or None, and the inner width, by the denoiser's config."""

    @abstractmethod
    def text(self, config_of: PartConfig) -> TextShape:
        """The text conditioning, by the configs of the pipeline's parts."""

    def latents(self, vae: Config) -> Latents:
        """The latents, by the VAE's config."""
        downscale = 2 ** (len(vae["block_out_channels"]) - 1)
        shift = float(vae.get("shift_factor") or 0.0)
        return Latents(int(vae["latent_channels"]), float(vae["scaling_factor"]), shift, downscale)

    def posterior(self, vae: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1]."""
        found = vae.encode(images).latent_dist
        return found.mean, found.std

    def process(self, scheduler: Config, base: str) -> Process:
        """How latents become noise, by the config of the pipeline's scheduler; a ValueError where
        the family does not know that schedule.
        """
        return read_diffusion(scheduler, base)

    def drop_projection(self, model: Any) -> None:
        """Takes the denoiser's own projection of text states away, so that it takes states of the
        inner width; nothing where it has none.
        """
        if self.projection is not None:
            setattr(model, self.projection, None)

    @contextmanager
    def keep_projection(self, model: Any) -> Iterator[None]:
        """Puts the denoiser's own projection back, or its absence, after an adapter has taken its
        place inside.
        """
        kept = None if self.projection is None else getattr(model, self.projection)
        try:
            yield
        finally:
            if self.projection is not None:
                setattr(model, self.projection, kept)

    @abstractmethod
    def encode(self, pipe: Any, prompts: list[str]) -> Conditioning:
        """What a stock pipeline's own text encoders give."""

    @abstractmethod
    def set_text(
        self, pipe: Any, text_encoder: nn.Module, tokenizer: Any, *, zeros_for_empty: bool = False
    ) -> None:
        """Puts a text encoder, which answers as the slot's own does, and its tokenizer in the slots
        of a stock pipeline that they serve, and empties the other text slots. Where a pipeline asks
        several slots for a prompt, each gets a `part` of the encoder
        (`adapter.text_encoder.AdaptedTextEncoder.part`). Where the pipeline can do that,
        `zeros_for_empty` gives zeros for an empty negative prompt.
        """

    def prompt(self, text: str) -> str:
        """A text as its pipelines hand it to their tokenizers, for features to agree with them."""
        return text

    def call_options(self, pipe: Any) -> dict[str, Any]:
        """What a pipeline has to be called with so that it hands a prompt in any language to its
        text encoder as it is; empty where stock pipelines do so.
        """
        return dict(self.adapted_options)

    def set_projection(self, pipe: Any, projection: nn.Module, encoder_width: int) -> None:
        """Puts an adapter in the place of the denoiser's own projection of text states. It takes
        states of width `encoder_width`, the text encoder's, to the inner width.
        """
        raise NotImplementedError(f"{self.name} has no projection of text states")
