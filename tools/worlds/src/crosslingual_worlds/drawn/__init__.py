"""The drawn world: pictures of shapes and motifs, captions in 18 languages, an exact judge."""

from pathlib import Path

from crosslingual.worlds import World
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.source import world

WEIGHTS = Path(__file__).parent / "weights"
MODELS = ("sd", "sd3", "clip", "xlm-r", "xlm-r-aligned")


WORLD = World(
    name="testbed",
    languages=LANGUAGES,
    models={name: WEIGHTS / name for name in MODELS},
    sources={"world": world},
    evaluation_name="crosslingual_worlds.drawn.evaluation:EVALUATION",
)
