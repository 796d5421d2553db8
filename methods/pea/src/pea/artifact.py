"""Writes an adapter's folder, reads it back, and converts the authors' published files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import artifact
from crosslingual.frozen import shapes
from crosslingual.frozen.base import DENOISERS, Base
from crosslingual.frozen.encoders import encoder_shape
from crosslingual.frozen.weights import resolve
from pea.method import build_adapter
from pea.settings import ImportSettings, TrainSettings

CARD = """\
A PEA adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the frozen UNet
of `{base}`, distilled from the English pipeline (PEA-Diffusion, arXiv 2311.17086; variant
{variant}).

```python
{import_base}
import pea

pipe = {load_base}
pea.attach(pipe, "this/folder")
pipe("..."{call}).images[0]
```
"""


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """Builds the adapter's config.json: its shape, its base and its encoder.

    Raises:
        ValueError: the form does not suit the base.
    """
    if settings.feature_blocks and (settings.variant == "seed" or not settings.feature_weight):
        raise ValueError(
            "feature_blocks names features to match, and this run matches none: use variant "
            "published and a feature_weight above 0, or leave it out"
        )
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    encoder_width, longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)
    config = {
        "method": "pea",
        "variant": settings.variant,
        "encoder_width": encoder_width,
        "width": base.text.width,
        "pooled_width": base.text.pooled_width,
        "hidden_width": settings.hidden_width,
        "rank": settings.rank,
        "max_length": settings.max_length or longest,
        "null_policy": "adapter",
        "base": base.id,
        "base_revision": base.revision,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
        "seed": settings.seed if settings.init_from is None else None,
    }
    if base.family.adapted_options:
        config["call_options"] = dict(base.family.adapted_options)
    with torch.device("meta"):  # refuses what the form cannot do, before anything is loaded
        build_adapter(config)
    return config


def save_adapter(
    state: dict[str, Tensor], config: dict[str, Any], folder: str | Path, results: list[dict] = ()
) -> Path:
    """Writes config.json, model.safetensors and the model card, with a table of `results` if there
    are any.
    """
    count = sum(tensor.numel() for tensor in state.values())
    card = artifact.model_card("PEA adapter", CARD, config, count=count, results=results)
    return artifact.save_artifact(folder, state=state, config=config, card=card)


def load_adapter(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Reads an exported adapter, frozen, and its config.

    Raises:
        FileNotFoundError, ValueError: the folder holds no adapter, a pickle, another method's
            adapter, or keys that do not match.
    """
    return artifact.load_adapter(folder, "pea", build_adapter)


def start_adapter(settings: TrainSettings, config: dict[str, Any]) -> nn.Module:
    """The adapter that a run starts from: that of `init_from`, or a new one by its seed.

    Raises:
        FileNotFoundError, ValueError: `init_from` is no adapter of this base, encoder and shape.
    """
    torch.manual_seed(settings.seed)
    adapter = build_adapter(config)
    if settings.init_from is not None:
        artifact.load_start(adapter, settings.init_from, config)
    return adapter


def initial_adapter(config: dict[str, Any]) -> nn.Module:
    """The adapter as a training by the config's `seed` starts it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return build_adapter(config)


FC_NAMES = {"fc1": "projector.0", "fc2": "projector.2", "fc3": "fc"}  # of an earlier code, SDXL's


def published_names(num_linear: int, *, has_bias: bool, has_fc: bool) -> set[str]:
    """The names of a published state dict with so many layers in `projector`."""
    layers = [f"projector.{2 * number}" for number in range(num_linear)]
    names = {"layernorm.weight", "layernorm.bias", *(f"{layer}.weight" for layer in layers)}
    names |= {f"{layer}.bias" for layer in layers if has_bias}
    return names | ({"fc.weight", "fc.bias"} if has_fc else set())


def published_shape(state: dict[str, Tensor], is_joint: bool | None = None) -> dict[str, Any]:
    """Infers the adapter's form and widths from a published state dict: `layernorm.*`, `projector`
    of 3 or 5 layers without biases, or of 2 with them, and `fc.*` where the base takes a pooled
    vector. SDXL's `fc` is wider than the projector's output and gives the states; that of FLUX.1
    and SD 3, bases of joint attention, is narrower and gives the pooled vector.

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


def _known_base(name: str) -> Base | None:
    """The base, if its shapes can be known without a network."""
    is_known = any(shapes.published_shape(name, part) for part in DENOISERS)
    return Base.open(name) if is_known or Path(resolve(name)).is_dir() else None


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
    """Converts a published state dict to config.json and model.safetensors."""
    theirs = artifact.read_state_dict(settings.state_dict)
    state = {}
    for name, tensor in theirs.items():
        layer, _, kind = name.rpartition(".")
        ours = f"{FC_NAMES.get(layer, layer)}.{kind}"
        state[name if ours in theirs else ours] = tensor
    base = _known_base(settings.pretrained_model_name_or_path)
    shape = published_shape(state, None if base is None else not base.family.has_cross_attention)
    if base is not None:
        _check_base(shape, base)
    is_of_states = shape.get("pooled_from") == "states"  # FLUX.1 and SD 3, after ByT5
    mask_padding = not is_of_states if settings.mask_padding is None else settings.mask_padding
    scale = settings.guidance_scale
    scale = (3.5 if is_of_states else 7.5) if scale is None else scale
    config = {
        "method": "pea",
        **shape,
        "max_length": settings.max_length or (256 if is_of_states else 77),
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
