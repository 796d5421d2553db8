"""A world's prompts: held-out scenes in every language, and each language's own culture."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from crosslingual.worlds import find_world
from crosslingual_benchmarks.generation.prompts import Prompt, PromptSet

REFERENCE_SEED = 2_147_483_647  # apart from any seed that prompts are drawn with
MIXED_WITH = "+"  # between the codes of a prompt's two languages
MIXED = "-mixed"  # ends the name of a set of such prompts
TRAIN = "-train"  # ends the name of a set of prompts of the training split


def world_prompts(
    world: str,
    languages: Sequence[str],
    num_prompts: int,
    num_motif_prompts: int,
    *,
    split: str = "test",
    seed: int = 0,
) -> PromptSet:
    """Scenes of a split, and scenes of each language's own culture.

    Each of `num_prompts` scenes is said in every language that has words for it;
    `num_motif_prompts` ask in each language for its own culture, where the world has some of it.

    Raises:
        ValueError: a language or split that the world does not have, or no prompts.
    """
    if num_prompts < 0 or num_motif_prompts < 0 or not num_prompts + num_motif_prompts:
        raise ValueError("num_prompts and num_motif_prompts leave no prompt; ask for some")
    evaluation = find_world(world).evaluation

    def prompt(name: str, scene: Any, languages: Sequence[str], culture: str | None) -> Prompt:
        said = {language: evaluation.caption(scene, language) for language in languages}
        texts = {language: text for language, text in said.items() if text is not None}
        return Prompt(name, texts, evaluation.caption(scene, "en"), culture=culture, scene=scene)

    prompts = [
        prompt(f"{split}-{number:05d}", scene, languages, None)
        for number, scene in enumerate(evaluation.scenes(split, num_prompts, seed))
    ]
    for language in dict.fromkeys(languages):
        own = evaluation.culture_scenes(language, num_motif_prompts) if num_motif_prompts else []
        prompts += [
            prompt(f"{language}-motif-{number:05d}", scene, [language], language)
            for number, scene in enumerate(own)
        ]
    protocol = {"split": split, "scene_seed": seed}
    if num_motif_prompts:  # as many as are asked for, also in a language whose culture has fewer
        protocol |= {"num_culture_prompts": num_motif_prompts, "culture_score": "judge"}
    name = f"{world}{TRAIN}" if split == "train" else world
    return PromptSet(name, prompts, protocol)


def mixed_prompts(
    world: str,
    languages: Sequence[str],
    second_languages: Sequence[str],
    num_prompts: int,
    *,
    split: str = "test",
    seed: int = 0,
) -> PromptSet:
    """Scenes of two things, said in two languages: `de+ja` is a German sentence that names its
    second thing in Japanese, and `de` the same scenes in German alone.

    Each of `second_languages` is paired with every language, in both orders.

    Raises:
        ValueError: the world's scenes have one thing, a language or split that it does not have,
            or no prompts.
    """
    evaluation = find_world(world).evaluation
    if evaluation.mixed_caption is None:
        raise ValueError(f"a prompt of the {world} names one thing: leave out --second_languages")
    if num_prompts < 1:
        raise ValueError("num_prompts leaves no prompt; ask for some")
    every = list(dict.fromkeys([*languages, *second_languages]))
    pairs = {
        first if first == second else f"{first}{MIXED_WITH}{second}": (first, second)
        for first in every
        for second in every
        if first == second or {first, second} & set(second_languages)
    }
    prompts = []
    for number, scene in enumerate(evaluation.pair_scenes(split, num_prompts, seed)):
        texts = {name: evaluation.mixed_caption(scene, *pair) for name, pair in pairs.items()}
        english = evaluation.caption(scene, "en")
        prompts.append(Prompt(f"{split}-{number:05d}", texts, english, scene=scene))
    protocol = {"split": split, "scene_seed": seed, "second_languages": list(second_languages)}
    return PromptSet(f"{world}{MIXED}", prompts, protocol)


def reference_pictures(world: str, count: int, split: str = "test") -> Iterator[Image.Image]:
    """True pictures of a split's scenes, always the same `count`, for FID to compare with."""
    evaluation, rng = find_world(world).evaluation, np.random.default_rng(REFERENCE_SEED)
    for scene in evaluation.scenes(split, count, REFERENCE_SEED):
        yield evaluation.draw(scene, rng)
