"""The testbed's prompts: held-out scenes, the same in every language, and each language's motif."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from crosslingual_benchmarks.generation.prompts import Prompt, PromptSet
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import Scene, motif_scenes, render, sample_scenes

REFERENCE_SEED = 2_147_483_647  # apart from any seed that prompts are drawn with


def scene_prompts(
    languages: Sequence[str],
    num_prompts: int,
    num_motif_prompts: int,
    *,
    split: str = "test",
    seed: int = 0,
) -> PromptSet:
    """Scenes of a split, and motifs.

    Args:
        languages: of the prompts.
        num_prompts: scenes of shapes, drawn with `seed`; each is said in every language.
        num_motif_prompts: for each language, prompts that ask in it for its own motif, in both
            sizes by turns.
        split: `train`, `val` or `test`.
        seed: of the scenes.

    Raises:
        ValueError: a language or split that the testbed does not have, or no prompts.
    """
    if num_prompts < 0 or num_motif_prompts < 0 or not num_prompts + num_motif_prompts:
        raise ValueError("num_prompts and num_motif_prompts leave no prompt; ask for some")
    prompts = [
        _prompt(f"{split}-{number:05d}", scene, languages, None)
        for number, scene in enumerate(sample_scenes(split, num_prompts, seed))
    ]
    for language in dict.fromkeys(languages):
        own = [s for s in motif_scenes() if MOTIFS[s.first.shape].language == language]
        prompts += [
            _prompt(f"{language}-motif-{number:05d}", own[number % len(own)], [language], language)
            for number in range(num_motif_prompts)
        ]
    return PromptSet("testbed", prompts, {"split": split, "scene_seed": seed})


def reference_pictures(count: int, split: str = "test") -> Iterator[Image.Image]:
    """True pictures of a split's scenes, always the same `count`, for FID to compare with."""
    rng = np.random.default_rng(REFERENCE_SEED)
    for scene in sample_scenes(split, count, REFERENCE_SEED):
        yield render(scene, rng)


def _prompt(name: str, scene: Scene, languages: Sequence[str], culture: str | None) -> Prompt:
    texts = {language: caption(scene, language) for language in languages}
    return Prompt(name, texts, caption(scene, "en"), culture=culture, scene=scene)
