"""The settings of stage 2's verbs (TriKD), and of the verbs that use a trained model; those of
`stage1/` are in its own `settings.py`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crosslingual.cli import demo
from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation.settings import EvaluateRetrievalSettings
from crosslingual.training import settings
from crosslingual.training.settings import ContinualSettings, LrScheduler, RunSettings


@dataclass
class TrainSettings(ContinualSettings, RunSettings):
    """Settings of `mclip train`; the defaults suit the testbed, the published ones are in configs/.

    Attributes:
        learning_rate: peak learning rate of the optimiser.
        adam_weight_decay: weight decay of the optimiser.
        clip: frozen CLIP: hub id, folder, or testbed:clip.
        clip_revision: git revision of the CLIP on the hub.
        text_encoder: frozen multilingual encoder: hub id, folder (stage 1's), or testbed:xlm-r.
        text_encoder_revision: git revision of the encoder on the hub.
        starts_from: encoder that stage 1 makes text_encoder from; `info` counts it until
            text_encoder is there.
        languages: BCP-47 codes of the captions to train on; each sample draws one of its own.
        max_length: tokens per caption; the encoder's own limit, and at most 77, if not given.
        resolution: edge of the pictures in pixels, before CLIP's centre crop.
        num_layers: layers of the X-projector.
        num_heads: attention heads of the X-projector.
        ffn_width: inner width of the X-projector's layers.
        dropout: dropout of the X-projector's layers.
        attention_dropout: dropout of the X-projector's attention.
        itc_weight: weight of the contrast between texts and pictures.
        ttc_weight: weight of the contrast between texts and English teacher texts (lambda).
        ttc_scale: paper (the learned temperature, as for pictures) or released (the fixed 2.659
            that the released code multiplies by).
        positives: rows that a caption is drawn to: its own (row), or all of its picture (picture),
            as in the authors' fine-tuning on COCO, for data that repeats a picture by caption.
        chunk_rows: rows of the similarity matrix that are in memory at a time.
        embed_batch_size: captions whose activations are in memory at a time; 0 for the whole batch.
        gradient_accumulation_steps: micro-steps per optimiser step; they do not enlarge the
            contrast.
        optimizer: adamw, or lamb as published.
        dataloader_num_workers: processes that decode shards; features need none.
        caption_keys: which JSON key of foreign shards holds which language, as caption_zh=zh.
        validation_data: folder of features to validate on; needed if validation_steps is not 0.
    """

    MAY_CHANGE: ClassVar[frozenset[str]] = RunSettings.MAY_CHANGE | {
        "chunk_rows",
        "embed_batch_size",
        "starts_from",
    }
    FORMER_NAMES: ClassVar[dict[str, str]] = {"weight_decay": "adam_weight_decay"}
    SHARES: ClassVar[frozenset[str]] = frozenset(("train_batch_size",))  # micro-steps split it

    output_dir: str = "runs/mclip"
    clip: str = "testbed:clip"
    clip_revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    starts_from: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
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
    positives: Literal["row", "picture"] = "row"
    chunk_rows: int = 1024
    embed_batch_size: int = 0
    train_batch_size: int = 256
    optimizer: Literal["adamw", "lamb"] = "adamw"
    lr_scheduler: LrScheduler = "inverse_sqrt"
    max_grad_norm: float = 2.0
    dataloader_num_workers: int = 0
    caption_keys: list[str] = field(default_factory=list)
    validation_rows: int = 1000


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `mclip features`: those of training as well, so that one file serves both."""


@dataclass
class ExportSettings(settings.ExportSettings):
    """Settings of `mclip export`.

    Attributes:
        bundle_encoder: copy the multilingual encoder into the folder, so that it needs no other.
    """

    bundle_encoder: bool = False


@dataclass
class ImportSettings:
    """Settings of `mclip import`.

    Attributes:
        state_dict: published file, .safetensors, .pt, .pth, .bin or .ckpt: the projectors, or the
            authors' whole checkpoint.
        output_dir: folder that gets the model.
        clip: the CLIP that the projectors were trained on.
        text_encoder: the encoder that they were trained after: hub id, folder, or a file of
            fairseq's XLM-R (mte_mclip.pt, or the whole checkpoint again), which is copied into the
            model's folder.
        tokenizer: XLM-R's tokenizer, of such a file: hub id or folder; XLM-R base's or large's by
            the width if not given.
        clip_revision: git revision of the CLIP on the hub.
        text_encoder_revision: git revision of the encoder on the hub.
        languages: BCP-47 codes of the languages that it reads.
        max_length: tokens per caption.
        resolution: edge of the pictures in pixels, before CLIP's centre crop.
        num_heads: attention heads of the X-projector's layers, which no tensor tells; as in the
            checkpoint's arguments, or 12, if not given.
    """

    state_dict: str
    output_dir: str
    clip: str
    text_encoder: str
    tokenizer: str | None = None
    clip_revision: str | None = None
    text_encoder_revision: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
    max_length: int = 77
    resolution: int = 248
    num_heads: int | None = None


@dataclass
class EvaluateSettings(EvaluateRetrievalSettings):
    """Settings of `mclip evaluate`.

    Attributes:
        resolution: edge of the pictures in pixels, before CLIP's centre crop; the model's own if
            not given.
    """

    resolution: int | None = None


@dataclass
class TableSettings:
    """Settings of `mclip table`: mean recall of several models, a row per language.

    Attributes:
        results: results.json that `mclip evaluate` wrote.
        models: columns as NAME=MODEL, MODEL as `mclip evaluate` was given it; the first is the
            English CLIP, the last one is compared with it.
        groups: rows as NAME=LANGUAGE,LANGUAGE: what the languages of a group were trained with.
        output: file that gets the table in Markdown.
    """

    results: str
    models: list[str]
    groups: list[str]
    output: str


@dataclass
class EmbedSettings:
    """Settings of `mclip embed`; give one of `images`, `shards` and `texts`.

    Attributes:
        model: exported folder.
        output: prefix of the two files, PREFIX.npy and PREFIX.json.
        images: folder of pictures.
        shards: shards whose pictures are embedded.
        texts: file with one text per line.
        batch_size: pictures or texts that are embedded at a time.
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
        model: exported folder.
        query: texts in any language.
        images: folder of pictures, which are embedded now.
        index: prefix of an index that `mclip embed` wrote.
        top: pictures per query.
        output: the contact sheet, a PNG file.
        batch_size: pictures that are embedded at a time.
    """

    model: str
    query: list[str]
    images: str | None = None
    index: str | None = None
    top: int = 5
    output: str = "search.png"
    batch_size: int = 128


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `mclip demo`; each is a variable of run.sh.

    Attributes:
        num_samples: pictures to train on.
        num_texts: sentences of parallel text in each language.
        num_test: held-out pictures to find.
        languages: BCP-47 codes that have captions of the pictures, besides English.
        text_languages: BCP-47 codes that have parallel text alone.
        zero_shot_languages: BCP-47 codes that have neither.
    """

    output_dir: str = "runs/mclip-demo"
    num_samples: int = 2000
    num_texts: int = 6000
    num_test: int = 500
    languages: list[LanguageCode] = field(default_factory=lambda: ["de", "zh"])
    text_languages: list[LanguageCode] = field(default_factory=lambda: ["ja", "nl"])
    zero_shot_languages: list[LanguageCode] = field(default_factory=lambda: ["hi"])
