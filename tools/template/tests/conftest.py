"""The method in miniature, as the conformance kit and its own tests train it."""

from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing.fixtures import *  # noqa: F403, the kit's fixtures
from crosslingual_worlds.testing.fixtures import Subject


@pytest.fixture(scope="session")
def subject() -> Subject:
    """The method, whose adapter has 736 parameters here."""
    return Subject(
        name="template",
        folder=Path(__file__).parents[1],
        recipe={"hidden_width": 24, "caption_dropout": 0.07, "seed": 1},
        whole={"use_ema": True},
    )


@pytest.fixture(scope="session")
def parts(sd: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": encoder,
        "languages": ["de", "fr"],
    }
