"""The authors' published files as an adapter's folder."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import artifact
from crosslingual.files import read_fields
from crosslingual.frozen.encoders import known_length
from crosslingual.frozen.weights import freeze, locate, quiet_libraries
from mulan.artifact import NO_ZEROS, save_adapter
from mulan.method import build_adapter
from mulan.settings import ImportSettings

NUM_HEADS = 8  # published; a state dict does not say
PIXART = {f"{layer}.{kind}" for layer in ("linear_1", "linear_2") for kind in ("weight", "bias")}


def _depth(state: dict[str, Tensor], prefix: str) -> list[int]:
    """The layers of encoder and decoder that a state dict has."""
    starts = [f"{prefix}transformer.{part}.layers." for part in ("encoder", "decoder")]
    layers = [{n[len(s) :].split(".")[0] for n in state if n.startswith(s)} for s in starts]
    return [max(len(part), 1) for part in layers]


def published_shape(state: dict[str, Tensor]) -> dict[str, Any]:
    """Infers the adapter's family and widths from a published state dict's names and shapes.

    SD 1.x and 2.x: `proj.*`, `queries`, `transformer.*`. SDXL: the same under `adapter1.` and
    `adapter2.`, `pool_caption_projection.*`, and sometimes `add_embedding.*`. PixArt: `linear_1.*`,
    `linear_2.*`.

    Raises:
        ValueError: the names are not MuLan's.
    """
    shape = {"variant": "published", "num_heads": NUM_HEADS, "num_layers": 0, "num_queries": 0}
    nothing = ("pool", "pooled_width", "split_widths", "pool_input_width", "add_embedding")
    shape |= dict.fromkeys(nothing)
    if set(state) == PIXART:
        width, encoder_width = state["linear_1.weight"].shape
        shape |= {"family": "pixart", "replaces_projection": True}
        return shape | {"encoder_width": encoder_width, "width": width}
    prefix = "adapter1." if "adapter1.queries" in state else ""
    has_states_pool = "pool_caption_projection.positional_embedding" in state
    head = "c_proj" if has_states_pool else "linear_1"
    wanted = [f"{prefix}queries", f"{prefix}proj.0.weight"]
    if prefix:
        wanted += ["adapter2.queries", f"pool_caption_projection.{head}.weight"]
    missing = [name for name in wanted if name not in state or state[name].ndim < 2]
    if missing:
        found = ", ".join(sorted(state)[:4])
        remedy = "; the authors' whole PixArt is imported from its transformer's folder"
        raise ValueError(
            f"this is not a published MuLan: nearest is the form for {'SDXL' if prefix else 'SD'}, "
            f"which has {', '.join(missing)}, and the file has {found}"
            + (remedy if any("transformer_blocks." in name for name in state) else "")
        )
    queries = state[f"{prefix}queries"]
    shape |= {"num_queries": queries.shape[1], "width": queries.shape[2]}
    shape |= {"depth": _depth(state, prefix)}
    shape["encoder_width"] = state[f"{prefix}proj.0.weight"].shape[1]
    if not prefix:
        return shape | {"family": "sd"}
    pooled_width, pool_input_width = state[f"pool_caption_projection.{head}.weight"].shape
    split = [state[f"{name}.queries"].shape[2] for name in ("adapter1", "adapter2")]
    shape |= {"family": "sdxl", "width": sum(split), "split_widths": split}
    shape |= {"pooled_width": pooled_width, "pool_input_width": pool_input_width}
    if has_states_pool:
        shape["pool"] = "states"
    else:
        # A pooled head as wide as the states can read their mean; any other width needs another
        # vector.
        shape["pool"] = "encoder" if pool_input_width != shape["encoder_width"] else "mean"
    if "add_embedding.linear_1.weight" in state:
        shape["add_embedding"] = list(reversed(state["add_embedding.linear_1.weight"].shape))
    return shape


def import_published(settings: ImportSettings) -> Path:
    """Converts a published adapter to config.json and model.safetensors; or the authors' whole
    PixArt, a folder of diffusers' transformer, to an adapter that brings this transformer.

    Raises:
        FileNotFoundError, ValueError: there is no such file, it holds more than tensors, its names
            or shapes are not MuLan's, the encoder gives another width, or an SDXL file has no null
            policy.
    """
    transformer = None
    if Path(settings.state_dict).is_dir():
        transformer = read_transformer(settings.state_dict)
        whole = transformer.state_dict()
        state = {name: whole[f"caption_projection.{name}"] for name in PIXART}
    else:
        state = artifact.read_state_dict(settings.state_dict)
        state = {name.removeprefix("caption_projection."): tensor for name, tensor in state.items()}
    shape = published_shape(state)
    is_sdxl = shape["family"] == "sdxl"
    if is_sdxl and settings.null_policy is None:
        raise ValueError(
            "published SDXL adapters differ in how they encode the empty prompt: say "
            "--null_policy zeros or --null_policy adapter"
        )
    if settings.null_policy == "zeros" and not is_sdxl:
        raise ValueError(NO_ZEROS)
    if settings.pooled_policy is not None and not is_sdxl:
        raise ValueError("pooled_policy is SDXL's: other bases take no pooled vector; leave it out")
    known_length(settings.text_encoder, shape["encoder_width"])  # refuses another width
    drop_tokens = settings.drop_tokens if settings.prompt_prefix else 0
    config = {
        "method": "mulan",
        **shape,
        "max_length": settings.max_length or (80 if shape["family"] == "sd" else 83),
        "prompt_prefix": settings.prompt_prefix,
        "drop_tokens": drop_tokens,
        "prefix_negative": is_sdxl,  # on other bases the authors read negative prompts as they are
        "null_policy": settings.null_policy or "adapter",
        "base": locate(settings.pretrained_model_name_or_path),
        "base_revision": None,
        "text_encoder": locate(settings.text_encoder),
        "text_encoder_revision": None,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
    }
    if is_sdxl:
        config["pooled_policy"] = settings.pooled_policy or "zeros"
    if shape["family"] == "pixart":
        config["call_options"] = {"clean_caption": False}
        if drop_tokens:
            config["call_options"]["max_sequence_length"] = config["max_length"]
    artifact.load_strict(build_adapter(config), state)
    return save_adapter(state, config, settings.output_dir, transformer=transformer)


def read_transformer(folder: str | Path) -> nn.Module:
    """The authors' whole PixArt as diffusers' transformer: of a folder with config.json and its
    weights, safetensors or a pickle of tensors alone.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: it holds another model.
    """
    from diffusers import PixArtTransformer2DModel

    config = read_fields(Path(folder) / "config.json", {"_class_name": str | None}, "copy it again")
    if config.get("_class_name") not in ("Transformer2DModel", "PixArtTransformer2DModel"):
        raise ValueError(
            f"{folder} holds a {config.get('_class_name')}, and the authors' whole model is a "
            "PixArt transformer: give the folder of its transformer"
        )
    stem = "diffusion_pytorch_model"
    names = [f"{stem}{end}" for end in (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")]
    found = [Path(folder) / name for name in names if (Path(folder) / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")
    known = inspect.signature(PixArtTransformer2DModel.__init__).parameters
    with torch.random.fork_rng(devices=[]), quiet_libraries():  # the caller's
        model = PixArtTransformer2DModel(**{n: v for n, v in config.items() if n in known})
    artifact.load_strict(model, artifact.read_state_dict(found[0]))
    return freeze(model)
