"""The training data: the outputs of the frozen text encoders for each sample's captions."""

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks
from template.settings import TrainSettings


def frozen_parts(settings: TrainSettings, ranks: Ranks) -> FrozenParts:
    """The frozen parts, whose outputs the adapter trains on."""
    return FrozenParts(
        Base.open(settings.pretrained_model_name_or_path, settings.revision),
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        settings.text_encoder_revision,
        ranks.device,
    )
