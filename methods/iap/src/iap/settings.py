"""The settings of IAP's verbs, beyond those that all methods share."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crosslingual.cli import demo
from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation import settings as evaluation
from crosslingual.training import settings


@dataclass
class TrainSettings(
    settings.ContinualSettings, settings.EncoderSettings, settings.DiffusionSettings
):
    """Settings of `iap train`; the defaults are for the testbed.

    Attributes:
        text_encoder: encoder to start from, an XLM-R or an AltCLIP text model: hub id, folder, or
            a world's encoder such as testbed:xlm-r.
        target_language: BCP-47 codes of the captions to train on, one or several.
        objective: unet_attention (what the UNet's cross-attention reads of both captions, also
            called attention, its former name), clip_attention (what the patches of a frozen CLIP's
            image encoder read of them, without a UNet), or text, which compares the states with
            the English encoder's position by position, without picture or UNet.
        clip: for clip_attention, the CLIP whose text encoder the base has: hub id, folder, or a
            world's, such as testbed:clip.
        clip_revision: commit or tag of its hub entry.
        branch: local (the target branch computes only keys, values and attention, with the queries
            of the English pass) or full (a second pass through the whole UNet).
        layers: cross-attentions to match: all, any of down mid up, or their numbers.
        distance: distance between the attention outputs of both branches.
        normalise: divide each row's features by the standard deviation of the teacher's, per layer.
        noise_weight: weight of the distance between both branches' noise predictions; needs
            --branch full.
        pooled_weight: weight of the distance between both encoders' pooled vectors, where the base
            takes one; for clip_attention, between both languages' caption embeddings.
        rehearsal: share of the target captions, from 0 to 1, that are of rehearsal_languages, which
            target_language must name too, so that the encoder keeps English as well, or languages
            that it knew; if not given, they count as any other of these languages.
        captions_per_pass: target captions per picture and step, which share the English pass; no
            language repeats before all of the picture's languages are used.
        english_draws: noisy latents per picture whose English queries are stored with the features;
            training then loads only the UNet's cross-attentions. 0 runs the English pass at every
            step.
        query_positions: grid positions to store per layer for these queries; all if not given.
        train_encoder: full, or lora on the attention and feed-forward layers; the head trains in
            both cases.
        lora_rank: rank of the LoRA layers.
        max_length: tokens per target caption; if not given, the encoder's own limit, at most 77.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = {"languages": "target_language"}

    output_dir: str = "runs/iap"
    target_language: list[LanguageCode] = field(default_factory=list)
    objective: Literal["unet_attention", "clip_attention", "text", "attention"] = "unet_attention"
    clip: str = "testbed:clip"
    clip_revision: str | None = None
    branch: Literal["local", "full"] = "local"
    layers: list[str] = field(default_factory=lambda: ["all"])
    distance: Literal["mse", "cosine", "smooth_l1"] = "mse"
    normalise: bool = True
    noise_weight: float = 0.0
    pooled_weight: float = 1.0
    captions_per_pass: int = 1
    english_draws: int = 0
    query_positions: int | None = None
    train_encoder: Literal["full", "lora"] = "full"
    lora_rank: int = 16
    train_batch_size: int = 16
    adam_beta2: float = 0.98

    @property
    def reads_unet(self) -> bool:
        """Whether the objective compares what a UNet's cross-attentions read."""
        return self.objective in ("unet_attention", "attention")


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `iap features`."""


@dataclass
class ExportSettings(settings.ExportSettings):
    """Settings of `iap export`.

    Attributes:
        pipeline: also write the whole base with this encoder, to output_dir/pipeline.
    """

    pipeline: bool = False


@dataclass(kw_only=True)
class EvaluateSettings(evaluation.EvaluateSettings):
    """Settings of `iap evaluate`.

    Attributes:
        adapter: folder of an exported encoder.
        baselines: also evaluate English (upper bound) and the unadapted base, and draw a grid.
    """

    adapter: str
    baselines: bool = True


@dataclass
class AblateSettings(TrainSettings):
    """Settings of `iap ablate`: those of training, which every arm shares, and the arms.

    Attributes:
        arms: names of the arms to train; all if not given.
        num_processes: training processes; if not given, one per core, at most 2.
        num_seeds: runs per arm; they use seeds 0, 1, ... in place of `seed`.
        num_prompts: held-out prompts per language and run; each seed has its own.
        split: scenes to draw: val or test, which are held out, or train.
    """

    arms: list[str] = field(default_factory=list)
    num_processes: int | None = None
    num_seeds: int = 2
    num_prompts: int = 100
    split: str = "val"


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `iap demo`; each is a variable of run.sh.

    Attributes:
        max_train_steps: optimiser steps of the encoder's training.
        num_samples: pictures to train on.
        num_prompts: held-out prompts to draw per language.
        target_language: BCP-47 codes of the captions to train on.
    """

    output_dir: str = "runs/iap-demo"
    max_train_steps: int = 300
    num_samples: int = 2000
    num_prompts: int = 48
    target_language: list[LanguageCode] = field(default_factory=lambda: ["zh"])
