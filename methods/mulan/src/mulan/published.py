"""The authors' published files as an adapter's folder."""

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import artifact
from crosslingual.files import read_fields
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import known_length
from crosslingual.frozen.weights import differences, freeze, locate, quiet_libraries
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


def _size(state: dict[str, Tensor], *places: tuple[str, int], multiple: int = 1) -> int:
    """The size of a form, from the first tensor and axis of `places` that the file has; the least
    one if it has none. A size that is no multiple is rounded down: the tensor is then reported as
    of another shape.
    """
    sizes = [state[n].shape[axis] for n, axis in places if n in state and state[n].ndim > axis]
    return max(next(iter(sizes), 0) // multiple, 1) * multiple


def _sd_form(state: dict[str, Tensor], prefix: str = "") -> dict[str, Any]:
    widths = ("proj.2.weight", 0), ("queries", 2)
    return {
        "family": "sd",
        "num_queries": _size(state, (f"{prefix}queries", 1)),
        "width": _size(state, *((prefix + n, axis) for n, axis in widths), multiple=NUM_HEADS),
        "depth": _depth(state, prefix),
        "encoder_width": _size(state, (f"{prefix}proj.0.weight", 1)),
    }


def _sdxl_form(state: dict[str, Tensor], has_states_pool: bool) -> dict[str, Any]:
    shape, second = (_sd_form(state, f"adapter{number}.") for number in (1, 2))
    split = [shape["width"], second["width"]]
    head, last = ("c_proj", "c_proj") if has_states_pool else ("linear_1", "linear_2")
    pool, embedding = "pool_caption_projection", "add_embedding"
    pooled = (f"{pool}.{head}.weight", 0), (f"{pool}.{last}.bias", 0)
    input_width = _size(state, (f"{pool}.{head}.weight", 1))
    shape |= {"family": "sdxl", "width": sum(split), "split_widths": split}
    shape["num_queries"] = _size(state, ("adapter1.queries", 1), ("adapter2.queries", 1))
    shape |= {"pooled_width": _size(state, *pooled), "pool_input_width": input_width}
    if has_states_pool:
        shape["pool"] = "states"
    else:
        # A pooled head as wide as the states can read their mean; any other width needs another
        # vector.
        shape["pool"] = "encoder" if input_width != shape["encoder_width"] else "mean"
    if any(name.startswith(f"{embedding}.") for name in state):
        shape[embedding] = [
            _size(state, (f"{embedding}.linear_1.weight", 1)),
            _size(state, (f"{embedding}.linear_1.weight", 0), (f"{embedding}.linear_2.bias", 0)),
        ]
    return shape


def _pixart_form(state: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "family": "pixart",
        "replaces_projection": True,
        "encoder_width": _size(state, ("linear_1.weight", 1)),
        "width": _size(state, ("linear_1.weight", 0), ("linear_2.bias", 0)),
    }


FORMS = {
    "SD": _sd_form,
    "SDXL": partial(_sdxl_form, has_states_pool=False),
    "SDXL with an attention pool": partial(_sdxl_form, has_states_pool=True),
    "PixArt": _pixart_form,
}


def published_shape(state: dict[str, Tensor]) -> dict[str, Any]:
    """Infers the adapter's family and widths from a published state dict's names and shapes.

    SD 1.x and 2.x: `proj.*`, `queries`, `transformer.*`. SDXL: the same under `adapter1.` and
    `adapter2.`, `pool_caption_projection.*`, and sometimes `add_embedding.*`. PixArt: `linear_1.*`,
    `linear_2.*`.

    Raises:
        ValueError: the tensors are of none of these forms; the nearest is named, which shares the
            most names, with what differs from it.
    """
    nothing = ("pool", "pooled_width", "split_widths", "pool_input_width", "add_embedding")
    form = {"variant": "published", "num_heads": NUM_HEADS, "num_layers": 0, "num_queries": 0}
    form |= dict.fromkeys(nothing)
    shapes, expected = {}, {}
    for name, read_form in FORMS.items():
        shapes[name] = form | read_form(state)
        with torch.device("meta"):
            expected[name] = build_adapter(shapes[name]).state_dict()
    nearest = max(FORMS, key=lambda name: len(expected[name].keys() & state.keys()))
    if faults := differences(expected[nearest], state):
        remedy = "; the authors' whole PixArt is imported from its transformer's folder"
        raise ValueError(
            f"this is not a published MuLan: nearest is the form for {nearest}; {faults}"
            + (remedy if any("transformer_blocks." in name for name in state) else "")
        )
    return shapes[nearest]


def import_published(settings: ImportSettings) -> Path:
    """Converts a published adapter to config.json and model.safetensors; or the authors' whole
    PixArt, a folder of diffusers' transformer, to an adapter that brings this transformer.

    Raises:
        FileNotFoundError, ValueError: there is no such file, it holds more than tensors, its names
            or shapes are not MuLan's, the encoder gives another width, or an SDXL file has no null
            policy. Or the base is multilingual already.
    """
    Base.open_known(settings.pretrained_model_name_or_path)  # refuses one that needs no method
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
