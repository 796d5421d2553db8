"""The settings of PEA's verbs, beyond those that all methods share."""

from dataclasses import dataclass, field
from typing import Literal

from crosslingual.cli import demo
from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation import settings as evaluation
from crosslingual.training import settings


@dataclass
class TrainSettings(settings.ContinualSettings, settings.DiffusionSettings):
    """Settings of `pea train`; the defaults are for the testbed, configs/ holds the published ones.

    Attributes:
        languages: BCP-47 codes of the captions to train on.
        variant: published (the paper's adapter and loss) or seed (residual bottleneck, KL +
            reconstruction).
        hidden_width: width of the published adapter's hidden layers.
        rank: width of the seed adapter's bottleneck.
        feature_weight: weight of the feature distillation in the published loss; 0 matches the
            predictions alone.
        feature_outputs: features to match: the outputs of the denoiser's blocks, or those of the
            attentions inside them, as X2I does.
        feature_distance: distance of features: mse, the paper's, or x2i, a KL divergence over the
            channels of each position.
        feature_blocks: numbers of the blocks, from 0, whose features are matched; all of them if
            none is named. Fewer blocks take less memory.
        output_weight: weight of the distance of the denoiser's predictions in the published loss;
            with 0, as in X2I, parallel captions match features alone.
        pictures: start from noisy latents of pictures; false, as in X2I, from pure noise at the
            schedule's last timestep, so that shards and features need no pictures.
        warm_start_share: share of the run's steps, its first ones, in which the denoiser's
            cross-attentions alone compare every caption of a picture with the English one; 0, as
            published, distils from the first step.
        warm_start_queries: positions of a picture, drawn anew in every step, that each
            cross-attention asks from in the warm start, or all of a layer with fewer; 0 for all of
            every layer.
        warm_start_draws: noisy latents per picture whose English passes are kept with the features,
            as what each cross-attention is asked, so that the warm start runs no denoiser; 0 runs
            an English pass in every step.
        optimizer: adamw, or muon, whose updates of matrices are orthogonal; it needs ZeRO stage 0.
        recon_weight: weight of the reconstruction term in the seed loss (alpha in the paper).
        temperature: temperature of both softmaxes in the seed loss's KL term.
        gradient_checkpointing: recompute the UNet's activations in the backward pass; slower, but
            saves memory.
        compile: compile the UNet with torch.compile; slower to start, faster per step.
        validation_prompts: prompts to draw at each validation, one picture per prompt.
    """

    output_dir: str = "runs/pea"
    languages: list[LanguageCode] = field(default_factory=list)
    variant: Literal["published", "seed"] = "published"
    hidden_width: int = 384
    rank: int = 64
    feature_weight: float = 0.1
    feature_outputs: Literal["blocks", "attentions"] = "blocks"
    feature_distance: Literal["mse", "x2i"] = "mse"
    feature_blocks: list[int] = field(default_factory=list)
    output_weight: float = 1.0
    pictures: bool = True
    warm_start_share: float = 0.0
    warm_start_queries: int = 0
    warm_start_draws: int = 0
    optimizer: Literal["adamw", "muon"] = "adamw"
    recon_weight: float = 1.0
    temperature: float = 1.0
    adam_weight_decay: float = 0.1
    gradient_checkpointing: bool = False
    compile: bool = False
    validation_prompts: list[str] = field(default_factory=list)


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `pea features`."""


@dataclass
class ImportSettings:
    """Settings of `pea import`.

    Attributes:
        state_dict: the published file: .safetensors, .pt, .pth, .bin or .ckpt.
        output_dir: folder to write the adapter to.
        pretrained_model_name_or_path: base that the adapter was trained for.
        text_encoder: multilingual encoder that the adapter was trained on.
        languages: BCP-47 codes of the languages that the adapter reads.
        max_length: tokens per prompt; if not given, 256 in a file of FLUX.1's form (bytes of ByT5),
            and in others what the text encoder reads by default: 52 after Chinese-CLIP, 77 after
            most others, and 77 where the encoder is not on this disk and not well known.
        mask_padding: whether the encoder is told which tokens pad; if not given, false in a file of
            FLUX.1's form, whose users give ByT5 no mask, and true in others.
        guidance_scale: guidance scale to recommend in the adapter's config; if not given, 3.5 in a
            file of FLUX.1's form, 7.5 in others.
    """

    state_dict: str
    output_dir: str
    pretrained_model_name_or_path: str
    text_encoder: str
    languages: list[LanguageCode] = field(default_factory=list)
    max_length: int | None = None
    mask_padding: bool | None = None
    guidance_scale: float | None = None


@dataclass(kw_only=True)
class EvaluateSettings(evaluation.EvaluateSettings):
    """Settings of `pea evaluate`.

    Attributes:
        adapter: folder of an exported adapter.
    """

    adapter: str


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `pea demo`; each is a variable of run.sh.

    Attributes:
        max_train_steps: optimiser steps of the adapter's training.
        num_samples: pictures to train on.
        num_prompts: held-out prompts to draw per language.
        languages: BCP-47 codes of the captions to train on.
        zero_shot_languages: BCP-47 codes of languages that are evaluated but not trained on.
    """

    output_dir: str = "runs/pea-demo"
    max_train_steps: int = 600
    num_samples: int = 2000
    num_prompts: int = 24
    languages: list[LanguageCode] = field(default_factory=lambda: ["de", "zh"])
    zero_shot_languages: list[LanguageCode] = field(default_factory=lambda: ["ja", "nl"])
