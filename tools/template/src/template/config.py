"""The settings of every verb, one flat dataclass each; names are diffusers' where it has one.

Those of `template generate` are every method's: `crosslingual.adapter.pipeline.GenerateSettings`.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TrainSettings:
    """Settings of `template train`; the defaults are the testbed's.

    Attributes:
        train_data: a folder of features or of shards.
        output_dir: where checkpoints, metrics and the adapter go.
        pretrained_model_name_or_path: the English base, a hub id, a folder or testbed:sd.
        revision: of the base.
        text_encoder: the frozen multilingual encoder, a hub id, a folder or testbed:xlm-r.
        text_encoder_revision: of the encoder.
        languages: BCP-47 codes of the captions that train.
        hidden_width: of the adapter.
        max_length: tokens a prompt, as many as the base's own; the encoder's own limit, and at
            most 77, if not given.
        caption_dropout: share of rows that see the empty prompt.
        train_batch_size: samples a process and micro-step.
        gradient_accumulation_steps: micro-steps a step.
        max_train_steps: optimiser steps.
        learning_rate: peak.
        lr_scheduler: one of diffusers' schedules.
        lr_warmup_steps: of the schedule.
        adam_weight_decay: AdamW's.
        max_grad_norm: gradients are clipped to it.
        mixed_precision: no or bf16.
        deepspeed_config: a DeepSpeed JSON; ZeRO stage 0 if not given.
        dataloader_num_workers: processes that decode shards.
        caption_keys: JSON keys of foreign shards, as caption_zh=zh.
        seed: of everything drawn.
        checkpointing_steps: steps between checkpoints.
        checkpoints_total_limit: how many are kept.
        resume_from_checkpoint: a checkpoint folder or latest.
        guidance_scale: that the adapter's config recommends.
        report_to: none, tensorboard, wandb or trackio.
    """

    train_data: str = ""
    output_dir: str = "runs/template"
    pretrained_model_name_or_path: str = "testbed:sd"
    revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    languages: list[str] = field(default_factory=list)
    hidden_width: int = 384
    max_length: int | None = None
    caption_dropout: float = 0.1
    train_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 50
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    mixed_precision: Literal["no", "bf16"] = "no"
    deepspeed_config: str | None = None
    dataloader_num_workers: int = 0
    caption_keys: list[str] = field(default_factory=list)
    seed: int = 0
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    guidance_scale: float = 3.0
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"


@dataclass
class FeaturesSettings(TrainSettings):
    """Settings of `template features`: those of training, of which the frozen parts matter, so
    that one file serves both.

    Attributes:
        shards: the folder of shards (or their names) that features are computed of.
        features_dir: where the features go.
        encode_batch_size: captions of how many samples at a time.
    """

    shards: str = ""
    features_dir: str = ""
    encode_batch_size: int = 32


@dataclass
class ExportSettings:
    """Settings of `template export`.

    Attributes:
        checkpoint: a checkpoint folder, or a run's folder, whose latest one is taken.
        output_dir: where the adapter goes.
    """

    checkpoint: str
    output_dir: str
