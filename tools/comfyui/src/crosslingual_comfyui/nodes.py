"""The nodes. They need no import of ComfyUI, and import diffusers when one runs."""

import logging
from pathlib import Path
from typing import Any

from crosslingual_comfyui.bases import BASES

GUIDANCE = 3.5  # of FLUX, by default
SIZE = 1024  # pixels of an edge of SDXL's pictures, by default
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MODELS = Path(__file__).parents[4] / "models" / "crosslingual"
"""Of the ComfyUI whose `custom_nodes` this pack lies in."""

logger = logging.getLogger(__name__)


def find_folder(adapter: str) -> Path:
    """An adapter's folder: a name in ComfyUI's `models/crosslingual`, or any path."""
    if not adapter.strip():
        raise ValueError("name an adapter: a folder in models/crosslingual, or a path")
    inside = MODELS / adapter
    return inside if inside.is_dir() else Path(adapter).expanduser()


class LoadAdapter:
    """Loads an exported adapter with its frozen multilingual encoder."""

    DESCRIPTION = "An adapter that PEA, MuLan, IAP or AltDiffusion exported, with its encoder."
    CATEGORY = "conditioning/cross-lingual"
    FUNCTION = "load"
    RETURN_TYPES = ("CROSSLINGUAL_ADAPTER",)
    RETURN_NAMES = ("adapter",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        folder = "An exported folder: its name in models/crosslingual, or a path."
        base = "The kind of model that samples."
        device = "Where prompts are encoded; the weights wait on the CPU."
        dtype = "Precision of encoder and adapter; fp16 and bf16 take half the memory."
        return {
            "required": {
                "adapter": ("STRING", {"default": "", "tooltip": folder}),
                "base": ([*BASES], {"tooltip": base}),
            },
            "optional": {
                "device": (["default", "cpu"], {"default": "default", "tooltip": device}),
                "dtype": ([*PRECISIONS], {"default": "fp32", "tooltip": dtype}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, adapter: str | None, base: str | None) -> bool | str:
        """Refuses, before anything is queued, what the folder's config tells; None is an input
        that another node gives.
        """
        if adapter is None or base is None:
            return True
        if base not in BASES:
            return f"there is no base {base!r}: choose one of {', '.join(BASES)}"
        from crosslingual_comfyui.conditioning import check_adapter

        try:
            check_adapter(find_folder(adapter), base)
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, adapter: str | None, **_: Any) -> float:
        """When the folder was exported: ComfyUI keeps what it loaded until this changes. An adapter
        that another node names is loaded each time, as NaN never equals itself.
        """
        return float("nan") if adapter is None else find_folder(adapter).stat().st_mtime_ns

    def load(
        self, adapter: str, base: str, device: str = "default", dtype: str = "fp32"
    ) -> tuple[Any]:
        """The adapter with its encoder, as `conditioning.load_adapter`."""
        import torch

        from crosslingual_comfyui.conditioning import load_adapter

        place = torch.device("cpu")
        if device == "default" and torch.accelerator.is_available():
            place = torch.accelerator.current_accelerator()
        return (load_adapter(find_folder(adapter), base, place, getattr(torch, PRECISIONS[dtype])),)


class TextEncode:
    """Encodes a prompt in any language of an adapter."""

    DESCRIPTION = "A prompt in any language of the adapter, as conditioning for KSampler."
    CATEGORY = "conditioning/cross-lingual"
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING", "STRING")
    RETURN_NAMES = ("conditioning", "cut")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        role = "Adapters may read a negative prompt, and an empty one, in a way of their own."
        tooltip = "Guidance of FLUX; other models have KSampler's cfg."
        guidance = {"default": GUIDANCE, "min": 0.0, "max": 100.0, "step": 0.1, "tooltip": tooltip}
        tooltip = "Pixels of the picture, which SDXL reads beside the prompt; others do not."
        size = {"default": SIZE, "min": 0, "max": 16384, "tooltip": tooltip}
        return {
            "required": {
                "adapter": ("CROSSLINGUAL_ADAPTER",),
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True}),
                "role": (["positive", "negative"], {"tooltip": role}),
            },
            "optional": {
                "guidance": ("FLOAT", guidance),
                "width": ("INT", size),
                "height": ("INT", size),
            },
        }

    def encode(
        self,
        adapter: Any,
        text: str,
        role: str,
        guidance: float = GUIDANCE,
        width: int = SIZE,
        height: int = SIZE,
    ) -> tuple[list[Any], str]:
        """Conditioning, and what was cut of the text: a sentence, or nothing."""
        (states, pooled, _), cuts = adapter.encode(text, negative=role == "negative")
        extras = {} if pooled is None else {"pooled_output": pooled}
        if adapter.kind.family == "flux":
            extras["guidance"] = guidance
        if adapter.kind.family == "sdxl":  # ComfyUI's own default is 768
            extras |= {"width": width, "height": height}
        report = "\n".join(map(str, cuts))
        if report:
            logger.warning(report)
        return [[states, extras]], report


NODE_CLASS_MAPPINGS = {
    "CrosslingualLoadAdapter": LoadAdapter,
    "CrosslingualTextEncode": TextEncode,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CrosslingualLoadAdapter": "Load cross-lingual adapter",
    "CrosslingualTextEncode": "Cross-lingual text encode",
}
