"""The settings of every verb, one flat dataclass each; names are diffusers' where it has one.

Those of `iap generate` are every method's: `crosslingual.adapter.pipeline.GenerateSettings`.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TrainSettings:
    """Settings of `iap train`; the defaults are the testbed's.

    Attributes:
        train_data: a folder of features or of shards.
        output_dir: where checkpoints, metrics and the encoder go.
        pretrained_model_name_or_path: the English base, a hub id, a folder or testbed:sd.
        revision: of the base.
        text_encoder: where the target encoder starts, an XLM-R or an AltCLIP text model: hub id,
            folder or testbed:xlm-r.
        text_encoder_revision: of the encoder.
        target_language: BCP-47 codes of the captions that train, one or several.
        objective: attention (IAP) or text (the English encoder's states, position by position,
            without picture and UNet: the arm to beat).
        branch: local (the English pass gives the queries; of the target's only K, V and the
            attention are computed) or full (a second pass through the whole UNet).
        layers: cross-attentions that are matched: all, any of down mid up, or their numbers.
        distance: mse, cosine or smooth_l1, of the attentions' outputs.
        normalise: divides a row's features of a layer by their standard deviation in the teacher.
        noise_weight: weight of the distance of both branches' noise predictions; full branch only.
        captions_per_pass: target captions a picture and step, in languages drawn without
            repetition as far as there are as many; they share the English pass.
        english_draws: noisy latents a picture whose English pass runs once, with the features, and
            whose queries are kept there; 0 runs the pass at every step. Of the UNet, training then
            holds the cross-attentions alone.
        query_positions: how many positions of a layer's grid are kept of each; all if not given.
        train_encoder: full, or lora on the linears of attention and feed-forward; the head trains
            in both.
        lora_rank: of the LoRA.
        max_length: tokens a target caption; the encoder's own limit, and at most 77, if not given.
        caption_dropout: share of rows that see the empty prompt in both branches.
        noise_offset: strength of a per-channel shift of the noise.
        resolution: of the pictures in pixels.
        train_batch_size: pictures a process and micro-step.
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
        guidance_scale: that the encoder's config recommends.
        report_to: none, tensorboard, wandb or trackio.
    """

    train_data: str = ""
    output_dir: str = "runs/iap"
    pretrained_model_name_or_path: str = "testbed:sd"
    revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
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
    max_length: int | None = None
    caption_dropout: float = 0.1
    noise_offset: float = 0.0
    resolution: int = 64
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: str = "polynomial"
    lr_warmup_steps: int = 50
    lr_end: float = 5e-8
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
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
    validation_steps: int = 0
    validation_data: str | None = None
    validation_rows: int = 64
    guidance_scale: float = 3.0
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"


@dataclass
class FeaturesSettings(TrainSettings):
    """Settings of `iap features`: those of training, of which the frozen parts matter, so that one
    file serves both.

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
    """Settings of `iap export`.

    Attributes:
        checkpoint: a checkpoint folder, or a run's folder, whose latest one is taken.
        output_dir: where the encoder goes.
        pipeline: writes the whole base with this encoder as well, to output_dir/pipeline.
    """

    checkpoint: str
    output_dir: str
    pipeline: bool = False


@dataclass
class EvaluateSettings:
    """Settings of `iap evaluate`: text accuracy on the testbed.

    Attributes:
        adapter: an exported folder.
        output_dir: where accuracy.json and grid.png go.
        languages: to test; those that trained if not given.
        num_prompts: held-out prompts a language, the same scenes in each.
        split: val or test.
        seed: of the scenes and the noise.
        baselines: judges English (the upper bound) and the bare base as well, and draws the grid.
    """

    adapter: str
    output_dir: str
    languages: list[str] = field(default_factory=list)
    num_prompts: int = 100
    split: str = "test"
    seed: int = 0
    baselines: bool = True


@dataclass
class AblateSettings(TrainSettings):
    """Settings of `iap ablate`: those of training, which every arm shares, and the arms.

    Attributes:
        arms: names of `iap.ablate.ARMS`; all of them if not given.
        num_processes: that train; as many as there are cores, at most 2, if not given.
        num_seeds: runs an arm, under seeds from 0 on, in place of `seed`.
        num_prompts: held-out prompts a language and run, other ones for each seed.
        split: val or test, of the prompts.
    """

    arms: list[str] = field(default_factory=list)
    num_processes: int | None = None
    num_seeds: int = 2
    num_prompts: int = 100
    split: str = "val"


@dataclass
class DemoSettings:
    """Settings of `iap demo`.

    Attributes:
        output_dir: where shards, features, encoder, table and pictures go; made anew.
        num_processes: that train; as many as there are cores, at most 2, if not given.
        max_train_steps: of the encoder.
        num_samples: pictures to train on.
        num_prompts: held-out prompts a language.
        target_language: languages that train.
        seed: of everything.
    """

    output_dir: str = "runs/iap-demo"
    num_processes: int | None = None
    max_train_steps: int = 300
    num_samples: int = 2000
    num_prompts: int = 48
    target_language: list[str] = field(default_factory=lambda: ["zh"])
    seed: int = 0
