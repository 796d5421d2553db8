"""The settings of the verbs, beyond those that all methods share."""

from dataclasses import dataclass, field

from crosslingual.cli import demo
from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation import settings as evaluation
from crosslingual.training import settings


@dataclass
class TrainSettings(settings.ContinualSettings, settings.CaptionSettings):
    """Settings of `template train`; the defaults are for the testbed.

    Attributes:
        languages: BCP-47 codes of the captions to train on.
        hidden_width: width of the adapter's hidden layer.
        max_length: tokens per prompt, which must equal the base's number; if not given, the
            encoder's own limit, at most 77.
    """

    output_dir: str = "runs/template"
    languages: list[LanguageCode] = field(default_factory=list)
    hidden_width: int = 384
    train_batch_size: int = 64
    lr_scheduler: settings.LrScheduler = "cosine"


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `template features`."""


@dataclass(kw_only=True)
class EvaluateSettings(evaluation.EvaluateSettings):
    """Settings of `template evaluate`.

    Attributes:
        adapter: folder of an exported adapter.
    """

    adapter: str


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `template demo`; each is a variable of run.sh.

    Attributes:
        max_train_steps: optimiser steps of the adapter's training.
        num_samples: captions to train on.
        num_prompts: held-out prompts to draw per language.
        languages: BCP-47 codes of the captions to train on.
    """

    output_dir: str = "runs/template-demo"
    max_train_steps: int = 1000
    num_samples: int = 2000
    num_prompts: int = 12
    languages: list[LanguageCode] = field(default_factory=lambda: ["de", "zh"])
