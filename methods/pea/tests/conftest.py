"""PEA in miniature, as the conformance kit and PEA's own tests train it."""

from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing.fixtures import *  # noqa: F403, the kit's fixtures
from crosslingual_worlds.testing.fixtures import Subject
from crosslingual_worlds.testing.miniatures import RESOLUTION


@pytest.fixture(scope="session")
def subject() -> Subject:
    """PEA, whose adapter has 1,272 parameters here."""
    return Subject(
        name="pea",
        folder=Path(__file__).parents[1],
        recipe={"hidden_width": 24, "caption_dropout": 0.2},
        whole={"use_ema": True},
    )


@pytest.fixture(scope="session")
def parts(sd: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": encoder,
        "languages": ["de", "fr"],
        "resolution": RESOLUTION,
    }
