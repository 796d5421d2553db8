"""The settings of a method's `generate`; apart, so that `--help` loads no torch."""

from dataclasses import dataclass


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
