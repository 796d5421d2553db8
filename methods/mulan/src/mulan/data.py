"""MuLan's training data: the outputs of its frozen parts for each sample."""

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.features.training_data import TrainingData, open_run_data
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks
from mulan.settings import TrainSettings


def frozen_parts(settings: TrainSettings, ranks: Ranks) -> FrozenParts:
    """The frozen parts, which also give the encoder's mask if the base takes one."""
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    return FrozenParts(
        base,
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        encoder_revision=settings.text_encoder_revision,
        device=ranks.device,
        with_english=settings.english_states,
        with_mask=base.text.takes_mask,
    )


def open_data(settings: TrainSettings, ranks: Ranks) -> TrainingData:
    """Opens `train_data`, features or shards.

    Raises:
        FileNotFoundError, ValueError: there is no data, or its features were made by other parts or
            without the English states that the alignment needs.
    """
    parts = frozen_parts(settings, ranks)
    data = open_run_data(settings, parts, ranks, has_pictures=settings.has_pictures)
    if settings.english_states and "english_states" not in data.null:
        raise ValueError(
            f"{settings.train_data} holds no English states: make the features anew, or add "
            "--english_states false if the alignment is image"
        )
    return data
