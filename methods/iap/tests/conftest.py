"""IAP in miniature, as the conformance kit and IAP's own tests train it."""

from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing.fixtures import *  # noqa: F403, the kit's fixtures
from crosslingual_worlds.testing.fixtures import Subject
from crosslingual_worlds.testing.miniatures import RESOLUTION


@pytest.fixture(scope="session")
def subject() -> Subject:
    """IAP, which exports an encoder; two captions share a pass where all of a run is compared."""
    return Subject(
        name="iap",
        folder=Path(__file__).parents[1],
        exported="encoder",
        weights=("text_encoder/model.safetensors",),
        recipe={"caption_dropout": 0.2},
        whole={"captions_per_pass": 2},
        languages="target_language",
    )


@pytest.fixture(scope="session")
def parts(sd: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": encoder,
        "target_language": ["de", "fr"],
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def places(shards: str, features: str, sd: str) -> dict[str, str]:
    """What names in braces stand for in the mistakes of `TestCommand`."""
    return {"shards": shards, "features": features, "sd": sd}
