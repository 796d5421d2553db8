"""The testbed's picture world as records: scenes, drawn and captioned in any of 18 languages."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosslingual.data.records import Record
    from crosslingual_worlds.drawn.world import Scene


def world(
    *,
    languages: Sequence[str],
    num_samples: int = 1000,
    num_motif_samples: int = 0,
    num_captions: int = 1,
    split: str = "train",
    seed: int = 0,
    distinct: bool = False,
    pictures: bool = True,
) -> "Iterator[Record]":
    """Draws scenes of a split, the same ones for the same arguments.

    Args:
        languages: BCP-47 codes of the captions, which are parallel.
        num_samples: scenes of shapes.
        num_motif_samples: pictures of the languages' cultural motifs to add, each captioned only in
            the motif's language, which is its culture.
        num_captions: maximum captions per language; the first ones are close translations.
        split: `train`, `val` or `test`, whose scenes are disjoint.
        seed: seed of the scenes and of their drawing.
        distinct: draw each scene only once, as retrieval needs them, instead of a balanced mix of
            one and two things.
        pictures: draw pictures; False gives parallel text only.

    Raises:
        ValueError: the split or a language is unknown.
    """
    import numpy as np

    from crosslingual.data.records import Record
    from crosslingual_worlds.drawn.captions import lexicon
    from crosslingual_worlds.drawn.motifs import MOTIFS
    from crosslingual_worlds.drawn.world import SPLITS, distinct_scenes, motif_scenes, sample_scenes

    lexicons = {language: lexicon(language) for language in languages}
    scenes = (distinct_scenes if distinct else sample_scenes)(split, num_samples, seed)
    drawing = (seed, list(SPLITS).index(split))
    for number, scene in enumerate(scenes):
        captions = {name: words.captions(scene)[:num_captions] for name, words in lexicons.items()}
        image = _draw(scene, np.random.default_rng((*drawing, number, 0))) if pictures else None
        yield Record(f"{split}-{number:07d}", image, captions, True, extra=_scene_fields(scene))
    motifs = [scene for scene in motif_scenes() if MOTIFS[scene.first.shape].language in lexicons]
    for number in range(num_motif_samples):
        scene = motifs[number % len(motifs)]
        language = MOTIFS[scene.first.shape].language
        yield Record(
            f"{split}-motif-{number:07d}",
            _draw(scene, np.random.default_rng((*drawing, number, 1))) if pictures else None,
            {language: lexicons[language].captions(scene)[:num_captions]},
            parallel=False,
            culture=language,
            extra=_scene_fields(scene),
        )


def scene_of(extra: dict[str, Any]) -> "Scene":
    """Returns the scene that a record shows, in the order of things of its first caption."""
    from crosslingual_worlds.drawn.world import Scene, Thing

    first, relation, second = extra["said"]
    return Scene(Thing(**first), relation, Thing(**second) if second else None)


def _scene_fields(scene: "Scene") -> dict[str, Any]:
    second = vars(scene.second) if scene.second else None
    return {"scene": scene.scene_id, "said": [vars(scene.first), scene.relation, second]}


def _draw(scene: "Scene", rng: Any) -> bytes:
    from crosslingual_worlds.drawn.world import render

    buffer = io.BytesIO()
    render(scene, rng).save(buffer, format="png")
    return buffer.getvalue()
