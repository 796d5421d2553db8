"""`NAME generate`: from an exported adapter and prompts to a folder of pictures, alike for every
method.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crosslingual.adapter.artifact import load_artifact_config
from crosslingual.frozen.base import load_pipeline as load_base


@dataclass
class GenerateSettings:
    """Settings of a method's `generate`.

    Attributes:
        prompt: one or more prompts, in any language the adapter speaks.
        adapter: the exported adapter's folder; without one the base reads the prompt as it is.
        pretrained_model_name_or_path: another base of the same family; the adapter's own if not
            given.
        output_dir: where the pictures go.
        negative_prompt: for all prompts.
        num_inference_steps: of the sampler.
        guidance_scale: of classifier-free guidance; what the adapter recommends if not given.
        num_images_per_prompt: pictures a prompt.
        height: in pixels; the base's own if not given.
        width: in pixels; the base's own if not given.
        seed: of the noise.
    """

    prompt: list[str]
    adapter: str | None = None
    pretrained_model_name_or_path: str | None = None
    output_dir: str = "pictures"
    negative_prompt: str | None = None
    num_inference_steps: int = 20
    guidance_scale: float | None = None
    num_images_per_prompt: int = 1
    height: int | None = None
    width: int | None = None
    seed: int = 0


def write_pictures(
    settings: GenerateSettings, load_pipeline: Callable[[str, str | None], Any]
) -> Path:
    """Writes pictures in GenEval's layout: OUT/00000/metadata.jsonl and samples/0000.png, a folder
    a prompt.

    Args:
        settings: the verb's.
        load_pipeline: the method's own, of an adapter's folder and a base or None; the adapter's
            config recommends a `guidance_scale`.

    Returns:
        The folder.

    Raises:
        ValueError: neither an adapter nor a base is named.
    """
    if settings.adapter is None and settings.pretrained_model_name_or_path is None:
        raise ValueError(
            "give --adapter, an exported folder, or --pretrained_model_name_or_path for a bare base"
        )
    guidance_scale = settings.guidance_scale
    if settings.adapter is None:
        pipe = load_base(settings.pretrained_model_name_or_path)
    else:
        pipe = load_pipeline(settings.adapter, settings.pretrained_model_name_or_path)
        if guidance_scale is None:
            guidance_scale = load_artifact_config(settings.adapter)["guidance_scale"]
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
    options = {"height": settings.height, "width": settings.width, "guidance_scale": guidance_scale}
    output_dir = Path(settings.output_dir)
    for number, prompt in enumerate(settings.prompt):
        folder = output_dir / f"{number:05d}"
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        pictures = pipe(
            prompt,
            negative_prompt=settings.negative_prompt,
            num_inference_steps=settings.num_inference_steps,
            num_images_per_prompt=settings.num_images_per_prompt,
            generator=torch.Generator().manual_seed(settings.seed),
            **{name: value for name, value in options.items() if value is not None},
        ).images
        for index, picture in enumerate(pictures):
            picture.save(folder / "samples" / f"{index:04d}.png")
            print(folder / "samples" / f"{index:04d}.png")
        metadata = {"prompt": prompt, "adapter": settings.adapter, "seed": settings.seed}
        (folder / "metadata.jsonl").write_text(
            json.dumps(metadata, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return output_dir
