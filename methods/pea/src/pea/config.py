"""The settings of every verb, one flat dataclass each; names are diffusers' where it has one."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class TrainSettings:
    """Settings of `pea train`; the defaults are the testbed's, the published ones stand in configs/.

    Attributes:
        train_data: a folder of features or of shards.
        output_dir: where checkpoints, metrics and the adapter go.
        pretrained_model_name_or_path: the English base, a hub id, a folder or testbed:sd.
        revision: of the base.
        text_encoder: the frozen multilingual encoder, a hub id, a folder or testbed:xlm-r.
        text_encoder_revision: of the encoder.
        languages: BCP-47 codes of the captions that train.
        variant: published (the paper's adapter and loss) or seed (residual bottleneck, KL + reconstruction).
        hidden_width: of the published adapter.
        rank: of the seed's bottleneck.
        feature_weight: weight of the block outputs' distillation.
        recon_weight: alpha of the seed's loss.
        temperature: of the seed's KL.
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
        adam_weight_decay: AdamW's.
        max_grad_norm: gradients are clipped to it.
        mixed_precision: no or bf16.
        use_ema: export the moving average.
        ema_decay: of the moving average.
        gradient_checkpointing: recompute the UNet's activations in the backward pass.
        compile: compile the UNet.
        deepspeed_config: a DeepSpeed JSON; ds/zero0.json of this package's kind if not given.
        dataloader_num_workers: processes that decode shards.
        caption_keys: JSON keys of foreign shards, as caption_zh=zh.
        seed: of everything drawn.
        checkpointing_steps: steps between checkpoints.
        checkpoints_total_limit: how many are kept.
        resume_from_checkpoint: a checkpoint folder or latest.
        validation_steps: steps between validations, 0 for none.
        validation_rows: samples of the fixed validation batch, the first of the data, which then do not train.
        validation_prompts: prompts whose pictures are drawn at each validation.
        report_to: none, tensorboard, wandb or trackio.
        dry_run: load everything, take one step, write nothing.
    """

    train_data: str = ""
    output_dir: str = "runs/pea"
    pretrained_model_name_or_path: str = "testbed:sd"
    revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    languages: list[str] = field(default_factory=list)
    variant: Literal["published", "seed"] = "published"
    hidden_width: int = 384
    rank: int = 64
    feature_weight: float = 0.1
    recon_weight: float = 1.0
    temperature: float = 1.0
    max_length: int | None = None
    caption_dropout: float = 0.1
    noise_offset: float = 0.0
    resolution: int = 64
    train_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: str = "polynomial"
    lr_warmup_steps: int = 50
    adam_weight_decay: float = 0.1
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
    validation_rows: int = 64
    validation_prompts: list[str] = field(default_factory=list)
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    dry_run: bool = False

    def adapter_config(self, encoder_width: int, width: int, pooled_width: int | None, max_length: int) -> dict[str, Any]:
        """What the exported adapter's config.json says of it."""
        return {
            "method": "pea",
            "variant": self.variant,
            "encoder_width": encoder_width,
            "width": width,
            "pooled_width": pooled_width,
            "hidden_width": self.hidden_width,
            "rank": self.rank,
            "max_length": max_length,
            "null_policy": "adapter",
            "base": self.pretrained_model_name_or_path,
            "base_revision": self.revision,
            "text_encoder": self.text_encoder,
            "text_encoder_revision": self.text_encoder_revision,
            "languages": self.languages,
        }
