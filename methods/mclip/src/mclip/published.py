"""`mclip import`: published projectors, `dim_proj.weight` and the two layers of `encoder_adapter`,
as a model's folder.

The layers are read in the names of fairseq, of torch's `nn.TransformerEncoderLayer` and of
transformers' Roberta, each of which is the same layer in other words. Any prefix before `dim_proj`
and `encoder_adapter` is passed over; every tensor of the file is used, or named in an error.
"""

import re
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter.artifact import read_state_dict
from crosslingual.cli.verbs import run_verb
from mclip.config import ImportSettings
from mclip.export import save_model
from mclip.method import INITIAL_LOGIT_SCALE, TriKD

FAIRSEQ = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.out_proj": "out",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "up",
    "fc2": "down",
    "final_layer_norm": "ffn_norm",
}
TORCH = {
    "self_attn.out_proj": "out",
    "norm1": "attention_norm",
    "linear1": "up",
    "linear2": "down",
    "norm2": "ffn_norm",
}
ROBERTA = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "ffn_norm",
}
OURS = FAIRSEQ | TORCH | ROBERTA
JOINT = re.compile(r"self_attn\.in_proj_(weight|bias)")  # torch's query, key and value in one
LAYER = re.compile(r"(?:.*\.)?encoder_adapter\.(?:layers?\.)?(\d+)\.(.+)")


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by `TriKD`'s names; the learned temperature is that of the start where the file
    has none, as it matters to further training alone.

    Raises:
        ValueError: tensors that are no projector's, by name, or none that are.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        ours = _names(name)
        parts = tensor.chunk(len(ours)) if len(ours) > 1 else [tensor]
        if not ours or any(part in renamed for part in ours):
            unknown.append(name)
        renamed |= dict(zip(ours, parts, strict=False))
    if unknown or "clip_projector.weight" not in renamed:
        named = ", ".join(unknown[:4]) or "no dim_proj.weight"
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        raise ValueError(
            f"these are not the published projectors: {named}{more}; keep only dim_proj and "
            "encoder_adapter"
        )
    scale = renamed.get("logit_scale", tensor.new_tensor(INITIAL_LOGIT_SCALE))
    return {**renamed, "logit_scale": scale.reshape(1)}


def _names(published: str) -> list[str]:
    """`TriKD`'s names of a published tensor: none, one, or three of a joint projection."""
    if published.endswith("dim_proj.weight"):
        return ["clip_projector.weight"]
    if published.split(".")[-1] == "logit_scale":
        return ["logit_scale"]
    found = LAYER.fullmatch(published)
    if found is None:
        return []
    layer, rest = f"x_projector.layers.{found[1]}", found[2]
    if joint := JOINT.fullmatch(rest):
        return [f"{layer}.{part}.{joint[1]}" for part in ("query", "key", "value")]
    part, _, kind = rest.rpartition(".")
    return [f"{layer}.{OURS[part]}.{kind}"] if part in OURS else []


def published_shape(state: dict[str, Tensor], num_heads: int) -> dict[str, Any]:
    """What `TriKD` is built from, read off its tensors; the heads are not in them.

    Raises:
        ValueError: there are no layers.
    """
    width, clip_width = state["clip_projector.weight"].shape
    layers = {name.split(".")[2] for name in state if name.startswith("x_projector.")}
    if "x_projector.layers.0.up.weight" not in state:
        raise ValueError("these are not the published projectors: no encoder_adapter, layer 0")
    return {
        "clip_width": clip_width,
        "width": width,
        "num_layers": len(layers),
        "num_heads": num_heads,
        "ffn_width": state["x_projector.layers.0.up.weight"].shape[0],
        "dropout": 0.3,
        "attention_dropout": 0.1,
    }


def import_published(settings: ImportSettings) -> Path:
    """Writes published projectors as config.json + model.safetensors."""
    from crosslingual.adapter.artifact import load_strict
    from crosslingual.frozen.weights import locate, weights_hash

    state = rename(read_state_dict(settings.state_dict))
    shape = published_shape(state, settings.num_heads)
    config = {
        "method": "mclip",
        **shape,
        "max_length": settings.max_length,
        "resolution": settings.resolution,
        "clip": locate(settings.clip),
        "clip_revision": None,
        "clip_weights": weights_hash(settings.clip),
        "text_encoder": locate(settings.text_encoder),
        "text_encoder_revision": None,
        "text_encoder_weights": weights_hash(settings.text_encoder),
        "languages": settings.languages,
    }
    load_strict(TriKD(shape), state)
    folder = save_model(state, config, settings.output_dir)
    print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip import`."""
    return run_verb("mclip import", ImportSettings, import_published, argv)


if __name__ == "__main__":
    sys.exit(main())
