"""What trains: the frozen text encoders of a run's captions, and their states from features or
shards.
"""

import torch

from crosslingual.data.records import parse_key_map
from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.features.training_data import TrainingData, open_training_data
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks
from template.config import TrainSettings

RESOLUTION = None  # captions alone: no picture is decoded


def key_map(settings: TrainSettings) -> dict[str, str] | None:
    """`caption_keys` as a mapping of JSON key to language, None where there are none."""
    return parse_key_map(settings.caption_keys) or None


def frozen_parts(settings: TrainSettings, device: torch.device) -> FrozenParts:
    """The parts whose outputs the adapter trains on."""
    return FrozenParts(
        Base.open(settings.pretrained_model_name_or_path, settings.revision),
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        settings.text_encoder_revision,
        device,
    )


def open_data(settings: TrainSettings, ranks: Ranks) -> TrainingData:
    """Opens `train_data`, features (those with pictures serve as well) or shards.

    Raises:
        FileNotFoundError, ValueError: nothing there, or features that were made of other parts.
    """
    return open_training_data(
        settings.train_data,
        frozen_parts(settings, ranks.device),
        resolution=RESOLUTION,
        batch_size=settings.train_batch_size,
        seed=settings.seed,
        ranks=ranks,
        num_workers=settings.dataloader_num_workers,
        key_map=key_map(settings),
    )
