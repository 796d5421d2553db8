"""What MuLan trains on: the frozen parts of its samples, and their arrays, stored or made anew."""

import torch

from crosslingual.data.records import parse_key_map
from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.features.training_data import TrainingData, open_training_data
from crosslingual.frozen.base import denoiser_part
from crosslingual.training.processes import Ranks
from mulan.config import TrainSettings


def key_map(settings: TrainSettings) -> dict[str, str] | None:
    """`caption_keys` as a mapping of JSON key to language, None where there are none."""
    return parse_key_map(settings.caption_keys) or None


def picture_size(settings: TrainSettings) -> int | None:
    """`resolution`, None where captions alone train: their shards need no pictures."""
    return None if settings.alignment == "language" else settings.resolution


def frozen_parts(settings: TrainSettings, device: torch.device) -> FrozenParts:
    """The parts whose outputs MuLan trains on; PixArt's transformer wants the encoder's mask."""
    base, revision = settings.pretrained_model_name_or_path, settings.revision
    return FrozenParts(
        base,
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        revision,
        settings.text_encoder_revision,
        device,
        with_english=settings.english_states,
        with_mask=denoiser_part(base, revision) == "transformer",
    )


def open_data(settings: TrainSettings, ranks: Ranks) -> TrainingData:
    """Opens `train_data`, features or shards.

    Raises:
        FileNotFoundError, ValueError: nothing there, or features that were made of other parts or
            without the English states that the alignment needs.
    """
    data = open_training_data(
        settings.train_data,
        frozen_parts(settings, ranks.device),
        resolution=picture_size(settings),
        batch_size=settings.train_batch_size,
        seed=settings.seed,
        ranks=ranks,
        num_workers=settings.dataloader_num_workers,
        key_map=key_map(settings),
    )
    if settings.english_states and "english_states" not in data.null:
        raise ValueError(
            f"{settings.train_data} holds no English states: make the features anew, or add "
            "--english_states false, which image alignment can do without"
        )
    return data
