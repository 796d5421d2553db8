"""The drawn world: pictures of shapes and motifs, captions in 18 languages, an exact judge."""

from pathlib import Path

from crosslingual.worlds import World
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.source import world

WEIGHTS = Path(__file__).parent / "weights"
MODELS = ("sd", "sd3", "clip", "xlm-r", "xlm-r-aligned")


class _Models(dict[str, Path]):
    """The world's model folders; `sd3`, as long as it is not made, says how to make it."""

    def __getitem__(self, name: str) -> Path:
        folder = super().__getitem__(name)
        if name == "sd3" and not folder.is_dir():
            raise FileNotFoundError(
                "testbed:sd3 has no weights yet: `python tools/worlds/pretrain/sd3.py --work WORK` "
                "trains it and writes them, in hours on one core"
            )
        return folder


WORLD = World(
    name="testbed",
    languages=LANGUAGES,
    models=_Models({name: WEIGHTS / name for name in MODELS}),
    sources={"world": world},
    evaluation_name="crosslingual_worlds.drawn.evaluation:EVALUATION",
)
