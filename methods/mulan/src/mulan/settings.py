"""The settings of MuLan's verbs, beyond those that all methods share."""

from dataclasses import dataclass, field
from typing import Literal

from crosslingual.adapter import settings as adapter
from crosslingual.cli import demo
from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation import settings as evaluation
from crosslingual.training import settings


@dataclass
class TrainSettings(settings.DiffusionSettings):
    """Settings of `mulan train`; the defaults are for the testbed, configs/ holds those of real
    bases.

    Attributes:
        languages: BCP-47 codes of the captions to train on; the paper uses English only.
        variant: published (learned queries) or seed (an MLP with weights for each language).
        alignment: loss to train with: image (the diffusion loss), language (distance to the English
            encoder's states) or both.
        language_weight: weight of the language loss for --alignment both.
        num_queries: states that the denoiser reads; language alignment needs as many as the
            English encoder gives.
        num_memory: samples of train_data whose sentence states the adapter keeps: each prompt is
            then read as a mixture of the sentences that it is nearest to (DeCap), which suits short
            names in languages that the encoder has only roughly aligned. 0, the published form,
            reads token states.
        query_width: width of the learned queries, where a linear layer then takes them to the
            base's; saves parameters on bases of wide states (4096). The base's width if not given.
        num_heads: attention heads of the adapter.
        num_layers: linear layers of a seed adapter, 2 or 3.
        pool: source of the pooled vector, where the base takes one: the mean of the token states,
            the first of them, or attention over them.
        replace_add_embedding: also train a replacement for SDXL's added embedding; needs
            --alignment image or both.
        init_adapter: folder of an exported adapter to start from. A seed adapter's languages that
            are not among `languages` are kept unchanged.
        null_policy: encoding of the empty prompt: adapter (like any other prompt) or zeros (SDXL
            only).
        english_states: store the English encoder's states in the features; language alignment
            needs them.
        gradient_checkpointing: recompute the denoiser's activations in the backward pass; slower,
            but saves memory.
        compile: compile the denoiser with torch.compile; slower to start, faster per step.
        validation_prompts: prompts to draw at each validation, one picture per prompt.
    """

    output_dir: str = "runs/mulan"
    languages: list[LanguageCode] = field(default_factory=lambda: ["en"])
    variant: Literal["published", "seed"] = "published"
    alignment: Literal["image", "language", "both"] = "image"
    language_weight: float = 1.0
    num_queries: int = 120
    num_memory: int = 0
    query_width: int | None = None
    num_heads: int = 8
    num_layers: int = 2
    pool: Literal["mean", "first", "attention"] = "mean"
    replace_add_embedding: bool = False
    init_adapter: str | None = None
    null_policy: Literal["adapter", "zeros"] = "adapter"
    english_states: bool = True
    train_batch_size: int = 24
    gradient_checkpointing: bool = False
    compile: bool = False
    validation_prompts: list[str] = field(default_factory=list)

    @property
    def has_pictures(self) -> bool:
        """Whether training uses pictures, rather than captions only."""
        return self.alignment != "language"


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `mulan features`."""


@dataclass
class ImportSettings:
    """Settings of `mulan import`.

    Attributes:
        state_dict: the published file: .pth, .pt, .bin, .ckpt or .safetensors. For the authors'
            whole PixArt, the folder of its transformer.
        output_dir: folder to write the adapter to.
        pretrained_model_name_or_path: base that the adapter was published for.
        text_encoder: encoder that the adapter was published with.
        null_policy: adapter or zeros; required for SDXL, whose published files differ.
        pooled_policy: pooled vector that SDXL's UNet is given: zeros, the authors' default, or
            adapter, what the adapter's pooled head gives. SDXL only.
        prompt_prefix: words that are put before a prompt, without a space between; the authors'
            negative prompts have them on SDXL alone. Empty for none.
        drop_tokens: tokens of that prefix, whose states the adapter is not given.
        languages: BCP-47 codes for the adapter's model card.
        max_length: tokens per prompt, with the prefix; if not given, 80 on SD 1.x and 2.x, 83
            elsewhere.
        guidance_scale: guidance scale to recommend in the adapter's config.
    """

    state_dict: str
    output_dir: str
    pretrained_model_name_or_path: str
    text_encoder: str
    null_policy: Literal["adapter", "zeros"] | None = None
    pooled_policy: Literal["adapter", "zeros"] | None = None
    prompt_prefix: str = "summarize:"
    drop_tokens: int = 3
    languages: list[LanguageCode] = field(default_factory=lambda: ["en"])
    max_length: int | None = None
    guidance_scale: float = 7.5


@dataclass
class GenerateSettings(adapter.GenerateSettings):
    """Settings of `mulan generate`.

    Attributes:
        language: BCP-47 code of the prompts' language, whose weights a seed adapter uses; its first
            language if not given.
    """

    language: LanguageCode | None = None


@dataclass(kw_only=True)
class EvaluateSettings(evaluation.EvaluateSettings):
    """Settings of `mulan evaluate`.

    Attributes:
        adapter: folder of an exported adapter, or several folders on one base to compare.
        head: name of each adapter in the table.
    """

    adapter: list[str]
    head: list[str] = field(default_factory=lambda: ["MuLan"])


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `mulan demo`; each is a variable of run.sh.

    Attributes:
        max_train_steps: optimiser steps of each adapter's training.
        num_samples: English captions to train on.
        num_prompts: held-out prompts to draw per language.
        text_encoder: encoder that was not aligned across languages.
        aligned_encoder: encoder that was aligned across languages, to compare with.
        languages: BCP-47 codes of languages to evaluate besides English, all zero-shot.
    """

    output_dir: str = "runs/mulan-demo"
    max_train_steps: int = 900
    num_samples: int = 6000
    num_prompts: int = 24
    text_encoder: str = "testbed:xlm-r"
    aligned_encoder: str = "testbed:xlm-r-aligned"
    languages: list[LanguageCode] = field(default_factory=lambda: ["de", "hi", "ja", "zh"])
