"""`mulan import`: the published MuLan state dicts, recognised by their names and shapes.

SD 1.x and 2.x: `proj.*`, `queries`, `transformer.*`. SDXL: the same under `adapter1.` and
`adapter2.`, `pool_caption_projection.*`, and perhaps `add_embedding.*`. PixArt: `linear_1.*`,
`linear_2.*`, with or without `caption_projection.` before them.
"""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter.artifact import load_strict, read_state_dict
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.weights import locate
from mulan.config import ImportSettings
from mulan.export import save_adapter
from mulan.method import build_adapter

NUM_HEADS = 8  # published; a state dict does not say
PIXART = {f"{layer}.{kind}" for layer in ("linear_1", "linear_2") for kind in ("weight", "bias")}


def published_shape(state: dict[str, Tensor]) -> dict[str, Any]:
    """The adapter's family and widths, read off a published state dict.

    Raises:
        ValueError: names that are not MuLan's.
    """
    shape = {"variant": "published", "num_heads": NUM_HEADS, "num_layers": 0, "pool": None}
    shape |= {"num_queries": 0, "pooled_width": None, "split_widths": None}
    shape |= {"pool_input_width": None, "add_embedding": None}
    if set(state) == PIXART:
        width, encoder_width = state["linear_1.weight"].shape
        return shape | {"family": "pixart", "encoder_width": encoder_width, "width": width}
    prefix = "adapter1." if "adapter1.queries" in state else ""
    wanted = [f"{prefix}queries", f"{prefix}proj.0.weight"]
    if prefix:
        wanted += ["adapter2.queries", "pool_caption_projection.linear_1.weight"]
    missing = [name for name in wanted if name not in state or state[name].ndim < 2]
    if missing:
        found = ", ".join(sorted(state)[:4])
        raise ValueError(f"this is not a published MuLan: no {missing[0]} among {found}, ...")
    queries = state[f"{prefix}queries"]
    shape |= {"num_queries": queries.shape[1], "width": queries.shape[2]}
    shape["encoder_width"] = state[f"{prefix}proj.0.weight"].shape[1]
    if not prefix:
        return shape | {"family": "sd"}
    pooled_width, pool_input_width = state["pool_caption_projection.linear_1.weight"].shape
    split = [state[f"{name}.queries"].shape[2] for name in ("adapter1", "adapter2")]
    shape |= {"family": "sdxl", "width": sum(split), "split_widths": split}
    shape |= {"pooled_width": pooled_width, "pool_input_width": pool_input_width}
    # A pooled head as wide as the states could read their mean; narrower, it reads another vector.
    shape["pool"] = "encoder" if pool_input_width != shape["encoder_width"] else "mean"
    if "add_embedding.linear_1.weight" in state:
        embedded, in_width = state["add_embedding.linear_1.weight"].shape
        shape["add_embedding"] = [in_width, embedded]
    return shape


def import_published(settings: ImportSettings) -> Path:
    """Writes a published adapter as config.json + model.safetensors.

    Raises:
        FileNotFoundError, ValueError: no such file, more than tensors in it, names or shapes that
            are not MuLan's, or no null policy for an SDXL file.
    """
    state = read_state_dict(settings.state_dict)
    state = {name.removeprefix("caption_projection."): tensor for name, tensor in state.items()}
    shape = published_shape(state)
    null_policy = settings.null_policy or "adapter"
    if shape["family"] == "sdxl" and settings.null_policy is None:
        raise ValueError(
            "published SDXL adapters differ in what the empty prompt is: say --null_policy zeros "
            "or --null_policy adapter"
        )
    if shape["family"] != "sdxl" and null_policy == "zeros":
        raise ValueError("null_policy zeros is SDXL's: stock pipelines of other bases encode ''")
    config = {
        "method": "mulan",
        **shape,
        "max_length": settings.max_length,
        "null_policy": null_policy,
        "base": locate(settings.pretrained_model_name_or_path),
        "base_revision": None,
        "text_encoder": locate(settings.text_encoder),
        "text_encoder_revision": None,
        "languages": settings.languages,
        "guidance_scale": settings.guidance_scale,
    }
    load_strict(build_adapter(config), state)
    folder = save_adapter(state, config, Path(settings.output_dir))
    print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan import`."""
    return run_verb("mulan import", ImportSettings, import_published, argv)


if __name__ == "__main__":
    sys.exit(main())
