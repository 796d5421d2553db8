"""The settings of a method's `generate` and `merge`; apart, so that `--help` loads no torch."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class GenerateSettings:
    """Settings of a method's `generate`.

    Attributes:
        prompt: one or more prompts, in any language that the adapter reads.
        adapter: folder of an exported adapter; without one the base reads the prompt by itself.
        pretrained_model_name_or_path: hub id, folder or WORLD:NAME of another base of the
            adapter's family; the adapter's own base if not given.
        output_dir: folder that the pictures are written to.
        negative_prompt: what no picture should show.
        num_inference_steps: steps of the sampler for each picture.
        guidance_scale: strength of classifier-free guidance; the adapter's recommendation if not
            given.
        num_images_per_prompt: pictures for each prompt.
        height: of a picture in pixels; the base's own if not given.
        width: of a picture in pixels; the base's own if not given.
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


@dataclass
class MergeSettings:
    """Settings of a method's `merge`.

    Attributes:
        exports: folders of exported adapters of one base, encoder and shape, two or more.
        output_dir: folder that the merged adapter goes to.
        weights: a number for each export; equal ones if not given, which are 1 in sums.
        method: average of the weights; or, from the weights that all of them started from, the sum
            of their changes (task_arithmetic), that of each one's largest changes
            (magnitude_prune), or the mean of the largest that agree in sign (ties).
        density: share of each tensor's entries that ties and magnitude_prune keep of a change.
    """

    exports: list[str]
    output_dir: str
    weights: list[float] = field(default_factory=list)
    method: Literal["average", "task_arithmetic", "ties", "magnitude_prune"] = "average"
    density: float = 0.2
