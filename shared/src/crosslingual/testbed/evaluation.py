"""Text accuracy on the testbed: a pipeline's pictures of held-out prompts, read by the judge."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from crosslingual.testbed.captions import caption
from crosslingual.testbed.judge import shows
from crosslingual.testbed.world import RESOLUTION, Scene

GUIDANCE_SCALE = 3.0
NUM_STEPS = 20


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
