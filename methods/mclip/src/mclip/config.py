"""The settings of stage 2's verbs (TriKD) and of those that use a trained model, one flat dataclass
each; names are diffusers' where it has one. Stage 1's stand in `config_text.py`.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TrainSettings:
    """Settings of `mclip train`; the defaults are the testbed's, the published ones stand in
    configs/.

    Attributes:
        train_data: a folder of features or of shards.
        output_dir: where checkpoints, metrics and the model go.
        clip: the frozen CLIP, a hub id, a folder or testbed:clip.
        clip_revision: of the CLIP.
        text_encoder: the frozen multilingual encoder, a hub id, a folder (stage 1's) or
            testbed:xlm-r.
        text_encoder_revision: of the encoder.
        languages: BCP-47 codes of the captions that train; each sample draws one of its own.
        max_length: tokens a caption; the encoder's own limit, and at most 77, if not given.
        resolution: of the pictures in pixels, before CLIP's centre crop.
        num_layers: of the X-projector.
        num_heads: of the X-projector.
        ffn_width: of the X-projector.
        dropout: of the X-projector.
        attention_dropout: of the X-projector.
        itc_weight: of the contrast between texts and pictures.
        ttc_weight: of the contrast between texts and English teacher texts, the paper's lambda.
        ttc_scale: paper (the learned temperature, as for pictures) or released (the fixed 2.659
            that the released code multiplies by).
        chunk_rows: rows of the similarity matrix that exist at a time.
        embed_batch_size: captions whose activations are held at a time; 0 for all of the batch.
        train_batch_size: samples a process and micro-step.
        gradient_accumulation_steps: micro-steps a step; they do not enlarge the contrast.
        max_train_steps: optimiser steps.
        optimizer: adamw, or lamb as published.
        learning_rate: peak.
        lr_scheduler: inverse_sqrt as published, or one of diffusers' schedules.
        lr_warmup_steps: of the schedule.
        lr_end: where the polynomial schedule ends.
        adam_beta1: the optimiser's.
        adam_beta2: the optimiser's.
        weight_decay: the optimiser's.
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
        validation_rows: samples of the validation, the first of that folder.
        report_to: none, tensorboard, wandb or trackio.
    """

    train_data: str = ""
    output_dir: str = "runs/mclip"
    clip: str = "testbed:clip"
    clip_revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    languages: list[str] = field(default_factory=list)
    max_length: int | None = None
    resolution: int = 64
    num_layers: int = 2
    num_heads: int = 12
    ffn_width: int = 768
    dropout: float = 0.3
    attention_dropout: float = 0.1
    itc_weight: float = 1.0
    ttc_weight: float = 0.1
    ttc_scale: Literal["paper", "released"] = "paper"
    chunk_rows: int = 1024
    embed_batch_size: int = 0
    train_batch_size: int = 256
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    optimizer: Literal["adamw", "lamb"] = "adamw"
    learning_rate: float = 1e-3
    lr_scheduler: str = "inverse_sqrt"
    lr_warmup_steps: int = 50
    lr_end: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    weight_decay: float = 0.01
    max_grad_norm: float = 2.0
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
    validation_rows: int = 1000
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"


@dataclass
class FeaturesSettings(TrainSettings):
    """Settings of `mclip features`: those of training, of which the frozen parts matter, so that
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
    """Settings of `mclip export`.

    Attributes:
        checkpoint: a checkpoint folder, or a run's folder, whose latest one is taken.
        output_dir: where the model goes.
        bundle_encoder: copy the multilingual encoder into the folder, so that it stands alone.
    """

    checkpoint: str
    output_dir: str
    bundle_encoder: bool = False


@dataclass
class ImportSettings:
    """Settings of `mclip import`.

    Attributes:
        state_dict: the published file, .safetensors, .pt, .pth, .bin or .ckpt.
        output_dir: where the model goes.
        clip: the CLIP that it was trained on.
        text_encoder: the encoder that it was trained after.
        languages: what it speaks.
        max_length: tokens a caption.
        resolution: of the pictures in pixels, before CLIP's centre crop.
        num_heads: of the X-projector's layers, which no tensor tells.
    """

    state_dict: str
    output_dir: str
    clip: str
    text_encoder: str
    languages: list[str] = field(default_factory=list)
    max_length: int = 77
    resolution: int = 248
    num_heads: int = 12


@dataclass
class EvaluateSettings:
    """Settings of `mclip evaluate`: Recall@1/5/10 both ways, by language.

    Attributes:
        model: an exported folder; or a CLIP's id or folder, read as it is.
        dataset: shards with the pictures and captions, as `crosslingual shards` writes them.
        output_dir: where results.json goes.
        languages: to test.
        captions: first (one a picture) or all.
        resolution: of the pictures in pixels, before CLIP's centre crop; the CLIP's size if not
            given.
        batch_size: pictures or texts at a time.
        num_bootstrap: resamplings of the queries for the 95 % interval; 0 for none.
        seed: of the resamplings.
    """

    model: str
    dataset: str
    output_dir: str
    languages: list[str]
    captions: Literal["first", "all"] = "first"
    resolution: int | None = None
    batch_size: int = 128
    num_bootstrap: int = 200
    seed: int = 0


@dataclass
class EmbedSettings:
    """Settings of `mclip embed`; give one of `images`, `shards` and `texts`.

    Attributes:
        model: an exported folder.
        output: prefix of the two files, PREFIX.npy and PREFIX.json.
        images: a folder of pictures.
        shards: shards whose pictures are embedded.
        texts: a file with a text a line.
        batch_size: pictures or texts at a time.
    """

    model: str
    output: str
    images: str | None = None
    shards: str | None = None
    texts: str | None = None
    batch_size: int = 128


@dataclass
class SearchSettings:
    """Settings of `mclip search`; give `images` or `index`.

    Attributes:
        model: an exported folder.
        query: texts in any language.
        images: a folder of pictures, embedded now.
        index: prefix of embeddings that `mclip embed --images` wrote.
        top: pictures a query.
        output: the contact sheet, a PNG.
        batch_size: pictures at a time.
    """

    model: str
    query: list[str]
    images: str | None = None
    index: str | None = None
    top: int = 5
    output: str = "search.png"
    batch_size: int = 128


@dataclass
class DemoSettings:
    """Settings of `mclip demo`.

    Attributes:
        output_dir: where shards, features, models, table and pictures go; made anew.
        num_processes: that train; as many as there are cores, at most 2, if not given.
        num_samples: pictures to train on.
        num_texts: sentences of parallel text.
        num_test: held-out pictures of the table.
        languages: that have captions of the pictures, besides English.
        text_languages: that have parallel text alone.
        zero_shot_languages: that have neither.
        seed: of everything.
    """

    output_dir: str = "runs/mclip-demo"
    num_processes: int | None = None
    num_samples: int = 2000
    num_texts: int = 6000
    num_test: int = 500
    languages: list[str] = field(default_factory=lambda: ["de", "zh"])
    text_languages: list[str] = field(default_factory=lambda: ["ja", "nl"])
    zero_shot_languages: list[str] = field(default_factory=lambda: ["hi"])
    seed: int = 0
