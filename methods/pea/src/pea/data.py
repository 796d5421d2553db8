"""PEA's training data: the outputs of its frozen parts for each sample."""

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks
from pea.settings import TrainSettings


def frozen_parts(settings: TrainSettings, ranks: Ranks) -> FrozenParts:
    """The frozen parts: the VAE gives latents, and both text encoders give states, and masks if the
    base takes them.
    """
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    return FrozenParts(
        base,
        settings.text_encoder,
        settings.languages,
        settings.max_length,
        encoder_revision=settings.text_encoder_revision,
        device=ranks.device,
        with_mask=base.text.takes_mask,
    )
