"""The settings of IAP's verbs, as far as they are not every method's."""

from dataclasses import dataclass, field
from typing import Literal

from crosslingual.cli import demo
from crosslingual.evaluation import settings as evaluation
from crosslingual.training import settings


@dataclass
class TrainSettings(settings.DiffusionSettings):
    """Settings of `iap train`; the defaults are for the testbed.

    Attributes:
        text_encoder: encoder to start from, an XLM-R or an AltCLIP text model: hub id, folder, or
            a world's such as testbed:xlm-r.
        target_language: BCP-47 codes of the captions to train on, one or several.
        objective: attention (IAP), or text, which compares the states with the English encoder's
            position by position, without picture and UNet.
        branch: local (the English pass gives the queries; of the target branch only keys, values
            and the attention are computed) or full (a second pass through the whole UNet).
        layers: cross-attentions to match: all, any of down mid up, or their numbers.
        distance: distance between the outputs of both branches' attentions.
        normalise: divide a layer's features of each row by their standard deviation in the teacher.
        noise_weight: weight of the distance between both branches' noise predictions; the full
            branch alone has them.
        captions_per_pass: target captions per picture and step, which share the English pass;
            their languages are drawn without repetition as long as there are enough.
        english_draws: noisy latents per picture whose queries of the English pass are kept with the
            features; training then holds the UNet's cross-attentions alone. 0 runs the English pass
            at every step.
        query_positions: positions of each layer's grid to keep of these queries; all if not given.
        train_encoder: full, or lora on the linears of attention and feed-forward; the head trains
            in both cases.
        lora_rank: rank of the LoRA layers.
        max_length: tokens per target caption; the encoder's own limit, and at most 77, if not
            given.
    """

    output_dir: str = "runs/iap"
    target_language: list[str] = field(default_factory=list)
    objective: Literal["attention", "text"] = "attention"
    branch: Literal["local", "full"] = "local"
    layers: list[str] = field(default_factory=lambda: ["all"])
    distance: Literal["mse", "cosine", "smooth_l1"] = "mse"
    normalise: bool = True
    noise_weight: float = 0.0
    captions_per_pass: int = 1
    english_draws: int = 0
    query_positions: int | None = None
    train_encoder: Literal["full", "lora"] = "full"
    lora_rank: int = 16
    train_batch_size: int = 16
    adam_beta2: float = 0.98


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `iap features`."""


@dataclass
class ExportSettings(settings.ExportSettings):
    """Settings of `iap export`.

    Attributes:
        pipeline: write the whole base with this encoder too, to output_dir/pipeline.
    """

    pipeline: bool = False


@dataclass(kw_only=True)
class EvaluateSettings(evaluation.EvaluateSettings):
    """Settings of `iap evaluate`.

    Attributes:
        adapter: folder of an exported encoder.
        baselines: judge English (the upper bound) and the bare base too, and draw the grid.
    """

    adapter: str
    baselines: bool = True


@dataclass
class AblateSettings(TrainSettings):
    """Settings of `iap ablate`: those of training, which every arm shares, and the arms.

    Attributes:
        arms: names of the arms to train; all of them if not given.
        num_processes: processes that train; as many as cores, at most 2, if not given.
        num_seeds: trainings per arm, with the seeds from 0 on in place of `seed`.
        num_prompts: held-out prompts per language and training; each seed has its own.
        split: which held-out scenes are asked for, val or test.
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
        num_prompts: held-out prompts to draw in each language.
        target_language: BCP-47 codes of the captions to train on.
    """

    output_dir: str = "runs/iap-demo"
    max_train_steps: int = 300
    num_samples: int = 2000
    num_prompts: int = 48
    target_language: list[str] = field(default_factory=lambda: ["zh"])
