"""MuLan in miniature, as the conformance kit and MuLan's own tests train it."""

from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing.fixtures import *  # noqa: F403, the kit's fixtures
from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded
from crosslingual_worlds.testing.miniatures import MAX_TOKENS, RESOLUTION, write_encoder


@pytest.fixture(scope="session")
def subject() -> Subject:
    """MuLan with an adapter of width 16, and with both losses where all of a run is looked at."""
    return Subject(
        name="mulan",
        folder=Path(__file__).parents[1],
        recipe={"caption_dropout": 0.2},
        whole={"alignment": "both", "language_weight": 0.5, "use_ema": True},
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A multilingual encoder's folder: an XLM-R of width 12 whose pieces are letters, with as many
    positions as PixArt's pipeline pads to.
    """
    return write_encoder(tmp_path_factory.mktemp("encoder"), max_positions=130)


@pytest.fixture(scope="session")
def parts(sd: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts; as many queries as the English encoder has states,
    so that they can be compared.
    """
    return {
        "pretrained_model_name_or_path": sd,
        "text_encoder": encoder,
        "languages": ["en"],
        "num_queries": MAX_TOKENS,
        "num_heads": 2,
        "resolution": RESOLUTION,
    }


@pytest.fixture(scope="session")
def places(
    command: Command,
    parts: dict[str, Any],
    shards: str,
    pixart: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Shards, a PixArt base, and features without English states."""
    plain = tmp_path_factory.mktemp("plain")
    settings = {"shards": shards, "features_dir": plain, "english_states": False}
    succeeded(command("features", **settings, **parts))
    return {"shards": shards, "pixart": pixart, "plain": str(plain)}
