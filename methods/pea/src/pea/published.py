"""`pea import`: the published PEA state dicts (names `layernorm.*`, `projector.{0,2,4}.weight`,
SDXL also `fc.*`).
"""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter.artifact import read_state_dict
from crosslingual.cli.verbs import run_verb
from pea.config import ImportSettings
from pea.export import save_adapter
from pea.method import build_adapter


def published_shape(state: dict[str, Tensor]) -> dict[str, Any]:
    """The adapter's widths, read off a published state dict.

    Raises:
        ValueError: names that are not PEA's.
    """
    wanted = {"layernorm.weight", "layernorm.bias", *(f"projector.{i}.weight" for i in (0, 2, 4))}
    if set(state) not in (wanted, wanted | {"fc.weight", "fc.bias"}):
        odd = sorted(set(state) ^ wanted)
        raise ValueError(
            f"this is not a published PEA: names {', '.join(odd[:4])} are too many or missing"
        )
    hidden_width, encoder_width = state["projector.0.weight"].shape
    last = state["projector.4.weight"].shape[0]
    pooled_width = last if "fc.weight" in state else None
    width = state["fc.weight"].shape[0] if pooled_width else last
    shape = {
        "encoder_width": encoder_width,
        "width": width,
        "hidden_width": hidden_width,
        "pooled_width": pooled_width,
    }
    return {"variant": "published", "rank": 0, **shape}


def import_published(settings: ImportSettings) -> Path:
    """Writes a published adapter as config.json + model.safetensors."""
    state = read_state_dict(settings.state_dict)
    config = {
        "method": "pea",
        **published_shape(state),
        "max_length": settings.max_length,
        "null_policy": "adapter",
        "base": settings.pretrained_model_name_or_path,
        "base_revision": None,
        "text_encoder": settings.text_encoder,
        "text_encoder_revision": None,
        "languages": settings.languages,
        "guidance_scale": 7.5,
    }
    build_adapter(config).load_state_dict(state)
    folder = save_adapter(state, config, Path(settings.output_dir))
    print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea import`."""
    return run_verb("pea import", ImportSettings, import_published, argv)


if __name__ == "__main__":
    sys.exit(main())
