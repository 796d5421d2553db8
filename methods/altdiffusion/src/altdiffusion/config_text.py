"""The settings of the verbs of the text half: AltCLIP's training, and its retrieval."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TrainTextSettings:
    """Settings of `altdiffusion train-text`; the defaults are the testbed's, the published ones
    stand in configs/.

    Attributes:
        stage: teacher_learning, or contrastive, which goes on with a trained student.
        train_data: prefixes of parallel text, or folders of shards; with pictures for contrastive.
        output_dir: where sentences, checkpoints, metrics and the trained models go.
        teacher: the CLIP whose text half teaches and whose vision tower AltCLIP keeps, a hub id, a
            folder or testbed:clip.
        teacher_revision: of the teacher.
        text_encoder: what the student starts from, an XLM-R (hub id, folder or testbed:xlm-r), or a
            trained text_encoder folder.
        text_encoder_revision: of that encoder.
        languages: BCP-47 codes whose sentences train; all that train_data has if not given.
        keep_english: whether English sentences train beside their translations.
        max_length: tokens a sentence; the encoder's own limit, and at most 77, if not given.
        train_batch_size: sentences a process and micro-step.
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
        gradient_checkpointing: recompute the student's activations in the backward pass.
        deepspeed_config: a DeepSpeed JSON; ZeRO stage 0 if not given.
        seed: of everything drawn.
        checkpointing_steps: steps between checkpoints.
        checkpoints_total_limit: how many are kept.
        resume_from_checkpoint: a checkpoint folder or latest.
        validation_steps: steps between validations, 0 for none.
        validation_data: shards or prefixes of held-out parallel text.
        validation_rows: English sentences of the validation, the first ones.
        report_to: none, tensorboard, wandb or trackio.
    """

    stage: Literal["teacher_learning", "contrastive"] = "teacher_learning"
    train_data: list[str] = field(default_factory=list)
    output_dir: str = "runs/altclip"
    teacher: str = "testbed:clip"
    teacher_revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    languages: list[str] = field(default_factory=list)
    keep_english: bool = True
    max_length: int | None = None
    train_batch_size: int = 128
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
    gradient_checkpointing: bool = False
    deepspeed_config: str | None = None
    seed: int = 0
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    validation_steps: int = 0
    validation_data: list[str] = field(default_factory=list)
    validation_rows: int = 500
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"


@dataclass
class EvaluateRetrievalSettings:
    """Settings of `altdiffusion evaluate-retrieval`: Recall@1/5/10 both ways, by language.

    Attributes:
        model: an AltCLIP's folder, or a CLIP (hub id, folder or testbed:clip) as it is.
        dataset: shards with pictures and captions.
        output_dir: where results.json goes, a line a language and run.
        languages: to test.
        captions: first, one caption a picture, or all.
        batch_size: pictures or texts at a time.
        num_bootstrap: resamplings for the intervals, 0 for none.
        seed: of the resamplings.
    """

    model: str
    dataset: str
    output_dir: str
    languages: list[str]
    captions: Literal["first", "all"] = "first"
    batch_size: int = 128
    num_bootstrap: int = 1000
    seed: int = 0
