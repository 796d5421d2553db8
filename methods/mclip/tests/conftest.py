"""mCLIP in miniature: a CLIP and an XLM-R with random weights, and shards of coloured pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual_worlds.testing.fixtures import *  # noqa: F403, the kit's fixtures
from crosslingual_worlds.testing.fixtures import Subject
from crosslingual_worlds.testing.miniatures import write_clip

RESOLUTION, CLIP_WIDTH = 36, 10
NUM_SAMPLES = 24
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
VISION |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}


@pytest.fixture(scope="session")
def subject() -> Subject:
    """mCLIP; a contrast wants more rows than a picture model, so the batch is twice as large."""
    return Subject(
        name="mclip",
        folder=Path(__file__).parents[1],
        exported="model",
        recipe={
            "num_heads": 2,
            "ffn_width": 16,
            "dropout": 0.1,
            "chunk_rows": 3,
            "train_batch_size": 8,
        },
        base="clip",
        encode_batch_size=1,
    )


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP's folder: pictures of 32 x 32, a joint space of width 10, letters as tokens."""
    return write_clip(tmp_path_factory.mktemp("clip"), CLIP_WIDTH, VISION)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 pictures of four random colours, each with a letter of its own for a caption in German;
    three of four also in English, every other one in French.
    """
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        colours, picture = random.integers(0, 256, (2, 2, 3), dtype=np.uint8), io.BytesIO()
        Image.fromarray(colours.repeat(20, axis=0).repeat(20, axis=1)).save(picture, "PNG")
        letter = chr(ord("A") + number)
        captions = {"de": [letter * (1 + number % 3)]}
        if number % 4:
            captions["en"] = [f"a{letter}"]
        if number % 2:
            captions["fr"] = [letter.lower()]
        return Record(f"{number:05d}", picture.getvalue(), captions, parallel=True)

    folder = tmp_path_factory.mktemp("shards")
    write_shards(map(record, range(NUM_SAMPLES)), folder)
    return str(folder)


@pytest.fixture(scope="session")
def places(shards: str, encoder: str) -> dict[str, str]:
    """What names in braces stand for in the mistakes of `conformance.Command`."""
    return {"shards": shards, "encoder": encoder}


@pytest.fixture(scope="session")
def parts(clip: str, encoder: str) -> dict[str, Any]:
    """The settings that name the frozen parts."""
    languages = ["en", "de", "fr"]
    return {
        "clip": clip,
        "text_encoder": encoder,
        "languages": languages,
        "resolution": RESOLUTION,
    }
