"""The settings of the generating half's verbs, one flat dataclass each; names are diffusers' where
it has one. Those of the text half stand in config_text.py.

Those of `altdiffusion generate` are every method's: `crosslingual.adapter.pipeline.GenerateSettings`.
"""

from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["concept_alignment", "quality_improvement", "guidance_tuning"]


@dataclass
class TrainSettings:
    """Settings of `altdiffusion train`; the defaults are the testbed's, the published ones stand in
    configs/.

    Attributes:
        stage: concept_alignment (keys and values of cross-attention), quality_improvement (the
            whole UNet) or guidance_tuning (the same, with a tenth of the captions empty).
        train_data: a folder of features or of shards.
        output_dir: where checkpoints, metrics and the pipeline go.
        unet: the former stage's export, a pipeline's or a UNet's folder; the base's UNet if not
            given.
        pretrained_model_name_or_path: the base, a hub id, a folder or testbed:sd; VAE and noise
            schedule are taken from it in every stage.
        revision: of the base.
        text_encoder: the trained text encoder, a folder that train-text wrote, or a hub id.
        text_encoder_revision: of the encoder.
        languages: BCP-47 codes of the captions that train, English among them.
        all_attn2: concept alignment trains all of cross-attention, as the authors' code does.
        lora_rank: concept alignment by LoRA of this rank on keys and values; 0 for none.
        min_snr_gamma: of min-SNR weights; every timestep counts the same if not given.
        max_length: tokens a prompt; the encoder's own limit, and at most 77, if not given.
        caption_dropout: share of rows that see the empty prompt; the stage's own if not given.
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
        use_ema: export the moving average; not at ZeRO stage 3.
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
        validation_prompts: prompts whose pictures are drawn at each validation; not at ZeRO stage
            3.
        guidance_scale: of those pictures; the pipeline's config recommends it.
        report_to: none, tensorboard, wandb or trackio.
    """

    stage: Stage = "concept_alignment"
    train_data: str = ""
    output_dir: str = "runs/altdiffusion"
    unet: str | None = None
    pretrained_model_name_or_path: str = "testbed:sd"
    revision: str | None = None
    text_encoder: str = "runs/altclip/text_encoder"
    text_encoder_revision: str | None = None
    languages: list[str] = field(default_factory=list)
    all_attn2: bool = False
    lora_rank: int = 0
    min_snr_gamma: float | None = None
    max_length: int | None = None
    caption_dropout: float | None = None
    noise_offset: float = 0.0
    resolution: int = 64
    train_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: str = "polynomial"
    lr_warmup_steps: int = 50
    lr_end: float = 0.0
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
    """Settings of `altdiffusion features`: those of training, of which the frozen parts matter, so
    that one file serves both.

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
    """Settings of `altdiffusion export`.

    Attributes:
        checkpoint: a checkpoint folder of `train` or `train-text`, or a run's folder, whose latest
            one is taken.
        output_dir: where the pipeline goes (of train-text: text_encoder and altclip in it).
        dtype: of the written weights of a pipeline: fp32, to train on with; fp16 or bf16, to use.
    """

    checkpoint: str
    output_dir: str
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"


@dataclass
class EvaluateSettings:
    """Settings of `altdiffusion evaluate`: text accuracy and culture score on the testbed.

    Attributes:
        adapters: exported pipelines' folders, such as those of each stage in turn.
        output_dir: where accuracy.json, table.md, grid.png and motifs.png go.
        languages: to test; each is also asked for its own motif.
        num_prompts: held-out prompts a language, the same scenes in each.
        num_motif_prompts: pictures of each language's motif.
        as_is: whether the English base is given the foreign prompts too.
        split: val or test.
        seed: of the scenes and the noise.
    """

    adapters: list[str]
    output_dir: str
    languages: list[str]
    num_prompts: int = 48
    num_motif_prompts: int = 8
    as_is: bool = False
    split: str = "test"
    seed: int = 0


@dataclass
class MemorySettings:
    """Settings of `altdiffusion memory`.

    Attributes:
        configs: YAML files of train and train-text.
        num_gpus: numbers of GPUs that ZeRO divides by.
        output: a Markdown page to write; printed if not given.
    """

    configs: list[str]
    num_gpus: list[int] = field(default_factory=lambda: [1, 8, 64])
    output: str | None = None


@dataclass
class DemoSettings:
    """Settings of `altdiffusion demo`.

    Attributes:
        output_dir: where text, shards, features, runs, table and pictures go; made anew.
        num_processes: that train; as many as there are cores, at most 2, if not given.
        languages: that train beside English.
        num_texts: parallel sentences of each language for the text encoder.
        num_samples: pictures to train on.
        num_motif_samples: pictures of the languages' motifs, and of general ones among which they
            stand, for the stages of the whole UNet.
        num_prompts: held-out prompts a language.
        num_motif_prompts: pictures of each language's motif.
        seed: of everything.
    """

    output_dir: str = "runs/altdiffusion-demo"
    num_processes: int | None = None
    languages: list[str] = field(default_factory=lambda: ["de", "zh"])
    num_texts: int = 4000
    num_samples: int = 1500
    num_motif_samples: int = 600
    num_prompts: int = 16
    num_motif_prompts: int = 8
    seed: int = 0
