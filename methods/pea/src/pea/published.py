"""The authors' published files as an adapter's folder."""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter import artifact
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import MAX_LENGTH, known_length
from pea.artifact import save_adapter
from pea.method import build_adapter
from pea.settings import ImportSettings

FC_NAMES = {"fc1": "projector.0", "fc2": "projector.2", "fc3": "fc"}  # of an earlier code, SDXL's
BYT5_LENGTH = 256  # bytes of a prompt that the released adapters for FLUX.1 read
READ_ON_SD3 = (
    "the file is read on SD 3 in FLUX.1's form, after one encoder: the projector gives the states, "
    "the mean of fc the pooled vector; the authors' MultilingualSD3 reads several encoders and is "
    "not supported"
)


def published_names(num_linear: int, *, has_bias: bool, has_fc: bool) -> set[str]:
    """The names of a published state dict with so many layers in `projector`."""
    layers = [f"projector.{2 * number}" for number in range(num_linear)]
    names = {"layernorm.weight", "layernorm.bias", *(f"{layer}.weight" for layer in layers)}
    names |= {f"{layer}.bias" for layer in layers if has_bias}
    return names | ({"fc.weight", "fc.bias"} if has_fc else set())


def published_shape(state: dict[str, Tensor], is_joint: bool | None = None) -> dict[str, Any]:
    """Infers the adapter's form and widths from a published state dict: `layernorm.*`, `projector`
    of 3 or 5 layers without biases, or of 2 with them, and `fc.*` where the base takes a pooled
    vector. SDXL's `fc` is wider than the projector's output and gives the states; FLUX.1's is
    narrower and gives the pooled vector, and so it is read on any base of joint attention.

    Raises:
        ValueError: the names are not PEA's; the nearest form is named, with what differs. Or the
            widths do not tell which of both `fc` is, and `is_joint` is not given.
    """
    layers = {name.split(".")[1] for name in state if name.startswith("projector.")}
    num_linear, has_bias = len(layers), "projector.0.bias" in state
    has_fc = any(name.startswith("fc.") for name in state)
    nearest = {"num_linear": num_linear if num_linear in (2, 5) else 3}
    nearest |= {"has_bias": nearest["num_linear"] == 2, "has_fc": has_fc or num_linear == 2}
    wanted = published_names(**nearest)
    if set(state) != wanted:
        missing, unexpected = (
            ", ".join(sorted(names)[:4]) or "none"
            for names in (wanted - state.keys(), state.keys() - wanted)
        )
        raise ValueError(
            f"this is not a published PEA: nearest is the form of {nearest['num_linear']} linear "
            f"layers{' and fc' if nearest['has_fc'] else ''}; missing {missing}; unexpected "
            f"{unexpected}"
        )
    for name in sorted(name for name in wanted if not name.startswith("layernorm")):
        if state[name].ndim != 1 + name.endswith("weight"):
            raise ValueError(f"this is not a published PEA: {name} is {tuple(state[name].shape)}")
    hidden_width, encoder_width = state["projector.0.weight"].shape
    last = state[f"projector.{2 * num_linear - 2}.weight"].shape[0]
    shape = {"variant": "published", "rank": 0, "encoder_width": encoder_width}
    shape |= {"hidden_width": hidden_width, "num_linear": num_linear, "bias": has_bias}
    if not has_fc:
        return shape | {"width": last, "pooled_width": None}
    after = state["fc.weight"].shape[0]
    if is_joint is None and after == last:
        raise ValueError(
            f"fc is {after} wide, as the projector's output: name a base of "
            "--pretrained_model_name_or_path that is on this disk, which says what fc gives"
        )
    if after < last if is_joint is None else is_joint:
        return shape | {"width": last, "pooled_width": after, "pooled_from": "states"}
    return shape | {"width": after, "pooled_width": last}


def _check_base(shape: dict[str, Any], base: Base) -> None:
    found, taken = (
        f"states of width {width} and {f'a pooled vector of {pooled}' if pooled else 'no vector'}"
        for width, pooled in (
            (shape["width"], shape["pooled_width"]),
            (base.text.width, base.text.pooled_width),
        )
    )
    if found != taken:
        raise ValueError(
            f"read as an adapter of the family {base.family.name}, the file gives {found}, and "
            f"{base.id} takes {taken}: name the base that it was published for"
        )


def import_published(settings: ImportSettings) -> Path:
    """Converts a published state dict to config.json and model.safetensors.

    Raises:
        FileNotFoundError, ValueError: there is no such file, it holds more than tensors, its names
            or shapes are not PEA's, or those of an adapter for another base or encoder; or the base
            is multilingual already.
    """
    base = Base.open_known(settings.pretrained_model_name_or_path)
    theirs = artifact.read_state_dict(settings.state_dict)
    state = {}
    for name, tensor in theirs.items():
        layer, _, kind = name.rpartition(".")
        ours = f"{FC_NAMES.get(layer, layer)}.{kind}"
        state[name if ours in theirs else ours] = tensor
    shape = published_shape(state, None if base is None else not base.family.has_cross_attention)
    if base is not None:
        _check_base(shape, base)
    length = known_length(settings.text_encoder, shape["encoder_width"])
    is_of_states = shape.get("pooled_from") == "states"  # FLUX.1's form, after ByT5
    if is_of_states:
        length = BYT5_LENGTH
        if base is not None and base.family.name == "sd3":
            print(READ_ON_SD3, file=sys.stderr)
    mask_padding = not is_of_states if settings.mask_padding is None else settings.mask_padding
    scale = settings.guidance_scale
    scale = (3.5 if is_of_states else 7.5) if scale is None else scale
    config = {
        "method": "pea",
        **shape,
        "max_length": settings.max_length or length or MAX_LENGTH,
        "mask_padding": mask_padding,
        "null_policy": "adapter",
        "base": settings.pretrained_model_name_or_path,
        "base_revision": None,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": None,
        "languages": settings.languages,
        "guidance_scale": scale,
    }
    artifact.load_strict(build_adapter(config), state)
    return save_adapter(state, config, settings.output_dir)
