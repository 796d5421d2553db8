"""Text accuracy on the testbed: a pipeline's pictures of held-out prompts, read by the judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from crosslingual.training.processes import Ranks
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.contact_sheet import Cell, contact_sheet
from crosslingual_worlds.drawn.judge import shows
from crosslingual_worlds.drawn.world import RESOLUTION, Scene

GUIDANCE_SCALE = 3.0
NUM_STEPS = 20

Arm = tuple[str, str]  # language of the prompts, and whose pictures: `as_is`, or a method's name


@dataclass(frozen=True)
class Judged:
    """One prompt's picture and whether it shows all that the prompt says."""

    scene: Scene
    prompt: str
    picture: Image.Image
    is_right: bool


def judge_prompts(
    pipe: Any,
    scenes: list[Scene],
    language: str,
    *,
    seed: int = 0,
    batch_size: int = 48,
    num_inference_steps: int = NUM_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> list[Judged]:
    """Draws every scene from its caption in a language and judges the picture.

    Args:
        pipe: a Stable Diffusion pipeline on `testbed:sd`.
        scenes: what the prompts say; the noise of a scene depends on `seed` and its place alone,
            not on the language.
        language: of the prompts.
        seed: of the noise.
        batch_size: prompts at a time.
        num_inference_steps: of the sampler.
        guidance_scale: of classifier-free guidance.
    """
    judged = []
    for start in range(0, len(scenes), batch_size):
        part = scenes[start : start + batch_size]
        prompts = [caption(scene, language) for scene in part]
        generators = [
            torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(len(part))
        ]
        pictures = pipe(
            prompts,
            height=RESOLUTION,
            width=RESOLUTION,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generators,
        ).images
        rows = zip(part, prompts, pictures, strict=True)
        judged += [
            Judged(scene, prompt, picture, shows(picture, scene)) for scene, prompt, picture in rows
        ]
    return judged


def text_accuracy(judged: list[Judged]) -> float:
    """The share of pictures that show all that their prompt says."""
    return sum(item.is_right for item in judged) / len(judged)


def judge_arms(
    pipes: Mapping[str, Callable[[], Any]],
    arms: Sequence[Arm],
    scenes: list[Scene],
    *,
    seed: int,
    ranks: Ranks,
) -> dict[Arm, list[Judged]]:
    """Judges the same scenes in every arm; ranks share the arms, and all of them get all.

    Args:
        pipes: by the second word of an arm, what makes its pipeline; called where it is needed.
        arms: language and pipeline.
        scenes: what the prompts say.
        seed: of the noise.
        ranks: this process among the others.
    """
    made: dict[str, Any] = {}
    share = {}
    with torch.no_grad():
        for language, name in arms[ranks.rank :: ranks.world_size]:
            if name not in made:
                made[name] = pipes[name]()
            share[language, name] = judge_prompts(made[name], scenes, language, seed=seed)
    shares: list[dict[Arm, list[Judged]]] = [{} for _ in range(ranks.world_size)]
    dist.all_gather_object(shares, share)
    judged = {arm: items for part in shares for arm, items in part.items()}
    return {arm: judged[arm] for arm in arms}


def draw_arms(
    judged: Mapping[Arm, list[Judged]],
    languages: Sequence[str],
    columns: Mapping[str, str],
    num_scenes: int = 3,
) -> Image.Image:
    """A contact sheet, a row a language: for some scenes of two things that the English base drew
    rightly (arm `("en", "as_is")`), the picture of each arm above its prompt.

    Args:
        judged: of `judge_arms`.
        languages: the rows.
        columns: arm to its column's head, in order.
        num_scenes: how many scenes are shown.
    """
    shown = [
        i for i, item in enumerate(judged["en", "as_is"]) if item.is_right and item.scene.second
    ][:num_scenes]

    def cell(arm: Arm, index: int) -> Cell:
        item = judged[arm][index]
        return Cell(item.picture, item.prompt, arm[0], item.is_right)

    rows = [
        [cell((language, name), index) for index in shown for name in columns]
        for language in languages
    ]
    heads = [*columns.values()] * len(shown)
    return contact_sheet(rows, column_heads=heads, row_heads=list(languages))
