"""The kinds of base that the nodes serve: what each takes, and the stock pipeline that reads its
prompts. Nothing heavy is imported here, since ComfyUI reads the names when it starts.
"""

from typing import Any, NamedTuple

_UNET = {
    "sample_size": 8,
    "block_out_channels": (4,),
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "down_block_types": ("DownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D",),
}
_TRANSFORMER = {"num_layers": 0, "attention_head_dim": 8, "num_attention_heads": 1}
_NEGATIVE = ("states", "negative states", "pooled", "negative pooled")


class Kind(NamedTuple):
    """One kind of base.

    Attributes:
        family: its name among `crosslingual.frozen.families`.
        pipeline: its stock pipeline in diffusers.
        config: of a denoiser that takes its text states and does next to nothing.
        answer: what the pipeline's `encode_prompt` gives, in its order.
        options: what `encode_prompt` has to be called with besides a prompt.
    """

    family: str
    pipeline: str
    config: dict[str, Any]
    answer: tuple[str, ...]
    options: dict[str, Any]


def _sd(width: int) -> Kind:
    config = {**_UNET, "cross_attention_dim": width}
    return Kind("sd", "StableDiffusionPipeline", config, _NEGATIVE[:2], {})


BASES = {
    "SD 1.x": _sd(768),
    "SD 2.x": _sd(1024),
    "SDXL": Kind(
        "sdxl",
        "StableDiffusionXLPipeline",
        {
            **_UNET,
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 1280 + 6 * 4,
        },
        _NEGATIVE,
        {},
    ),
    "SD 3": Kind(
        "sd3",
        "StableDiffusion3Pipeline",
        {
            **_TRANSFORMER,
            "sample_size": 8,
            "caption_projection_dim": 8,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 2048,
        },
        _NEGATIVE,
        {"prompt_2": None, "prompt_3": None},
    ),
    "FLUX": Kind(
        "flux",
        "FluxPipeline",
        {
            **_TRANSFORMER,
            "num_single_layers": 0,
            "axes_dims_rope": (2, 2, 4),
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
        },
        ("states", "pooled", "positions"),
        {"prompt_2": None},
    ),
}
