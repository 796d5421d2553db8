"""The settings of full fine-tuning."""

from dataclasses import dataclass, field

from crosslingual.data.languages import LanguageCode
from crosslingual.training import settings
from crosslingual.training.settings import EncoderSettings, RunSettings


@dataclass
class FinetuneSettings(EncoderSettings, RunSettings):
    """Settings of `crosslingual-bench finetune`.

    Attributes:
        train_data: folder of shards, or of features that `finetune-features` wrote.
        pretrained_model_name_or_path: English base model: hub id, folder or testbed:sd.
        text_encoder: XLM-R to start from: hub id, folder or testbed:xlm-r.
        languages: languages whose captions train; each row draws one of those that it has.
        resolution: edge of the pictures in pixels.
        caption_dropout: share of rows that see the empty prompt instead of their caption.
        dataloader_num_workers: processes that decode shards; features need none.
        caption_keys: which JSON key of foreign shards holds which language, as caption_zh=zh.
    """

    output_dir: str = "runs/full_finetuning"
    pretrained_model_name_or_path: str = "testbed:sd"
    text_encoder: str = "testbed:xlm-r"
    languages: list[LanguageCode] = field(default_factory=list)
    resolution: int = 64
    caption_dropout: float = 0.1
    dataloader_num_workers: int = 0
    caption_keys: list[str] = field(default_factory=list)
    train_batch_size: int = 24
    adam_beta2: float = 0.98


@dataclass
class FeaturesSettings:
    """Settings of `crosslingual-bench finetune-features`.

    Attributes:
        shards: pictures with captions.
        features_dir: folder that gets the features.
        pretrained_model_name_or_path: base model, for its VAE.
        text_encoder: XLM-R whose tokenizer reads the captions.
        languages: languages of the captions.
        resolution: edge of the pictures in pixels.
        encode_batch_size: pictures at a time.
        dataloader_num_workers: processes that decode shards.
        caption_keys: which JSON key of foreign shards holds which language, as caption_zh=zh.
        verify_data: compare each shard with the SHA-256 in its index when it is first read.
        max_corrupt: share of the samples that may be unusable before the run stops.
        max_pixels: pixels that a picture may have; a larger one is unusable.
    """

    shards: str
    features_dir: str
    pretrained_model_name_or_path: str = "testbed:sd"
    text_encoder: str = "testbed:xlm-r"
    languages: list[LanguageCode] = field(default_factory=list)
    resolution: int = 64
    encode_batch_size: int = 32
    dataloader_num_workers: int = 0
    caption_keys: list[str] = field(default_factory=list)
    verify_data: bool = True
    max_corrupt: float = 0.01
    max_pixels: int = 64 * 2**20


@dataclass
class ExportSettings(settings.ExportSettings):
    """Settings of `crosslingual-bench finetune-export`."""
