"""The drawn world's prompts and its exact judge, for text accuracy and culture scores."""

from crosslingual_worlds.drawn.captions import caption, mixed_caption
from crosslingual_worlds.drawn.judge import shows
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import (
    RESOLUTION,
    Scene,
    distinct_scenes,
    motif_scenes,
    render,
    sample_scenes,
)
from crosslingual_worlds.evaluation import Evaluation


def culture_scenes(language: str, count: int) -> list[Scene]:
    """Returns `count` scenes of the language's own motif, alternating between its sizes."""
    own = [scene for scene in motif_scenes() if MOTIFS[scene.first.shape].language == language]
    return [own[number % len(own)] for number in range(count)]


def pair_scenes(split: str, count: int, seed: int) -> list[Scene]:
    """Returns `count` scenes of two things, for prompts in two languages."""
    return sample_scenes(split, count, seed, singles=0.0)


EVALUATION = Evaluation(
    resolution=RESOLUTION,
    scenes=sample_scenes,
    distinct_scenes=distinct_scenes,
    culture_scenes=culture_scenes,
    draw=render,
    caption=caption,
    shows=shows,
    is_shown=lambda scene: scene.second is not None,
    pair_scenes=pair_scenes,
    mixed_caption=mixed_caption,
)
