"""What PEA trains on: the arrays that its frozen parts make of a sample."""

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks
from pea.settings import TrainSettings


def frozen_parts(settings: TrainSettings, ranks: Ranks) -> FrozenParts:
    """The parts whose outputs PEA trains on: VAE latents, and the states of both text encoders."""
    return FrozenParts(
        Base.open(settings.pretrained_model_name_or_path, settings.revision),
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        encoder_revision=settings.text_encoder_revision,
        device=ranks.device,
    )
