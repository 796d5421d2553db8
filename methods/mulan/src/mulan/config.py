"""The settings of every verb, one flat dataclass each; names are diffusers' where it has one.

Those of `mulan generate` are every method's with one more: the language of a seed adapter.
"""

from dataclasses import dataclass, field
from typing import Literal

from crosslingual.adapter.pipeline import GenerateSettings as SharedGenerateSettings


@dataclass
class TrainSettings:
    """Settings of `mulan train`; the published ones stand in configs/.

    Attributes:
        train_data: a folder of features or of shards.
        output_dir: where checkpoints, metrics and the adapter go.
        pretrained_model_name_or_path: the English base, a hub id, a folder or testbed:sd.
        revision: of the base.
        text_encoder: the frozen multilingual encoder, a hub id, a folder or testbed:xlm-r.
        text_encoder_revision: of the encoder.
        languages: BCP-47 codes of the captions that train; English alone is the method.
        variant: published (learned queries) or seed (an MLP with weights for each language).
        alignment: image (diffusion loss), language (the English encoder's states) or both.
        language_weight: of the language term in both.
        num_queries: states that the UNet sees; language alignment wants the English encoder's.
        num_heads: attention heads of the adapter.
        num_layers: linear layers of a seed adapter, 2 or 3.
        pool: what SDXL's pooled head reads: mean of the token states, first of them, or attention.
        replace_add_embedding: train a replacement of SDXL's added embedding as well.
        init_adapter: an exported adapter to start from; of the seed variant, its other languages
            stay as they are.
        null_policy: the empty prompt goes through encoder and adapter, or is zeros (SDXL).
        english_states: whether features hold the English encoder's states, for language alignment.
        max_length: tokens a prompt; the encoder's own limit, and at most 77, if not given.
        caption_dropout: share of rows that see the empty prompt.
        noise_offset: strength of a per-channel shift of the noise.
        resolution: of the pictures in pixels.
        train_batch_size: samples a process and micro-step.
        gradient_accumulation_steps: micro-steps a step.
        max_train_steps: optimiser steps.
        learning_rate: peak.
        lr_scheduler: one of diffusers' schedules.
        lr_warmup_steps: of the schedule.
        lr_end: where the polynomial schedule ends.
        adam_beta1: AdamW's.
        adam_beta2: AdamW's.
        adam_weight_decay: AdamW's.
        max_grad_norm: gradients are clipped to it.
        mixed_precision: no or bf16.
        use_ema: export the moving average.
        ema_decay: of the moving average.
        gradient_checkpointing: recompute the UNet's activations in the backward pass.
        compile: compile the UNet.
        deepspeed_config: a DeepSpeed JSON; ZeRO stage 0 if not given.
        dataloader_num_workers: processes that decode shards.
        caption_keys: JSON keys of foreign shards, as caption_zh=zh.
        seed: of everything drawn.
        checkpointing_steps: steps between checkpoints.
        checkpoints_total_limit: how many are kept.
        resume_from_checkpoint: a checkpoint folder or latest.
        validation_steps: steps between validations, 0 for none.
        validation_data: a folder of features for validation; needed where validation_steps is not
            0.
        validation_rows: samples of the fixed validation batch, the first of that folder.
        validation_prompts: prompts whose pictures are drawn at each validation.
        guidance_scale: of those pictures; the adapter's config recommends it.
        report_to: none, tensorboard, wandb or trackio.
    """

    train_data: str = ""
    output_dir: str = "runs/mulan"
    pretrained_model_name_or_path: str = "testbed:sd"
    revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    languages: list[str] = field(default_factory=lambda: ["en"])
    variant: Literal["published", "seed"] = "published"
    alignment: Literal["image", "language", "both"] = "image"
    language_weight: float = 1.0
    num_queries: int = 120
    num_heads: int = 8
    num_layers: int = 2
    pool: Literal["mean", "first", "attention"] = "mean"
    replace_add_embedding: bool = False
    init_adapter: str | None = None
    null_policy: Literal["adapter", "zeros"] = "adapter"
    english_states: bool = True
    max_length: int | None = None
    caption_dropout: float = 0.1
    noise_offset: float = 0.0
    resolution: int = 64
    train_batch_size: int = 24
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: str = "polynomial"
    lr_warmup_steps: int = 50
    lr_end: float = 5e-8
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    mixed_precision: Literal["no", "bf16"] = "no"
    use_ema: bool = False
    ema_decay: float = 0.999
    gradient_checkpointing: bool = False
    compile: bool = False
    deepspeed_config: str | None = None
    dataloader_num_workers: int = 0
    caption_keys: list[str] = field(default_factory=list)
    seed: int = 0
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    validation_steps: int = 0
    validation_data: str | None = None
    validation_rows: int = 64
    validation_prompts: list[str] = field(default_factory=list)
    guidance_scale: float = 3.0
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"


@dataclass
class FeaturesSettings(TrainSettings):
    """Settings of `mulan features`: those of training, of which the frozen parts matter, so that
    one file serves both.

    Attributes:
        shards: the folder of shards (or their names) that features are computed of.
        features_dir: where the features go.
        encode_batch_size: pictures at a time.
    """

    shards: str = ""
    features_dir: str = ""
    encode_batch_size: int = 32


@dataclass
class ExportSettings:
    """Settings of `mulan export`.

    Attributes:
        checkpoint: a checkpoint folder, or a run's folder, whose latest one is taken.
        output_dir: where the adapter goes.
    """

    checkpoint: str
    output_dir: str


@dataclass
class ImportSettings:
    """Settings of `mulan import`.

    Attributes:
        state_dict: the published file, .pth, .pt, .bin, .ckpt or .safetensors.
        output_dir: where the adapter goes.
        pretrained_model_name_or_path: the base that it was trained for.
        text_encoder: the encoder that it was trained after.
        null_policy: adapter or zeros; published SDXL files differ, so theirs must be said.
        languages: what it speaks.
        max_length: tokens a prompt.
        guidance_scale: that the adapter's config recommends.
    """

    state_dict: str
    output_dir: str
    pretrained_model_name_or_path: str
    text_encoder: str
    null_policy: Literal["adapter", "zeros"] | None = None
    languages: list[str] = field(default_factory=lambda: ["en"])
    max_length: int = 77
    guidance_scale: float = 7.5


@dataclass
class GenerateSettings(SharedGenerateSettings):
    """Settings of `mulan generate`.

    Attributes:
        language: whose weights a seed adapter uses; its first if not given.
    """

    language: str | None = None


@dataclass
class EvaluateSettings:
    """Settings of `mulan evaluate`: text accuracy on the testbed.

    Attributes:
        adapter: an exported folder.
        output_dir: where accuracy.json and grid.png go.
        languages: to test.
        num_prompts: held-out prompts a language, the same scenes in each.
        split: val or test.
        seed: of the scenes and the noise.
    """

    adapter: str
    output_dir: str
    languages: list[str]
    num_prompts: int = 100
    split: str = "test"
    seed: int = 0


@dataclass
class DemoSettings:
    """Settings of `mulan demo`.

    Attributes:
        output_dir: where shards, features, adapters, table and pictures go; made anew.
        num_processes: that train; as many as there are cores, at most 2, if not given.
        max_train_steps: of each adapter.
        num_samples: English captions to train on.
        num_prompts: held-out prompts a language.
        text_encoder: an encoder that was never aligned across languages.
        aligned_encoder: a folder of one that was; the embedded one if not given.
        languages: that are tested beside English, all zero-shot.
        seed: of everything.
    """

    output_dir: str = "runs/mulan-demo"
    num_processes: int | None = None
    max_train_steps: int = 900
    num_samples: int = 6000
    num_prompts: int = 24
    text_encoder: str = "testbed:xlm-r"
    aligned_encoder: str | None = None
    languages: list[str] = field(default_factory=lambda: ["de", "hi", "ja", "zh"])
    seed: int = 0
