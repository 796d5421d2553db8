"""MuLan's training data: the outputs of its frozen parts for each sample."""

import torch
from torch import Tensor

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.features.loader import FeatureLoader
from crosslingual.features.training_data import TrainingData, open_run_data
from crosslingual.frozen.base import Base
from crosslingual.training.processes import Ranks
from mulan.memory import sentence_states
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


def support_memory(settings: TrainSettings) -> Tensor | None:
    """Sentence states (M, C) of the empty prompt and of the first `num_memory` samples of
    `train_data`, in the first training language; None for a run without a memory.

    Raises:
        FileNotFoundError, ValueError: `train_data` holds no features, or fewer samples.
    """
    if not settings.num_memory:
        return None
    features = FeatureLoader(settings.train_data, batch_size=1, seed=0, verify=settings.verify_data)
    if (num_rows := features.index.num_rows) < settings.num_memory:
        raise ValueError(
            f"num_memory is {settings.num_memory}, but {settings.train_data} has {num_rows} "
            f"samples: use --num_memory {num_rows}"
        )
    name = "multilingual_states"
    states = features.rows(torch.arange(settings.num_memory), [name])[name][:, 0]
    return sentence_states(torch.cat([features.null()[name][None], states]).float())
