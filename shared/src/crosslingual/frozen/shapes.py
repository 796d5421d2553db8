"""The shapes of well-known models by their hub id, so that `NAME info` counts them without network,
and `tools/random_base.py` builds them without weights. Values that are the libraries' defaults are
left out.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name("published_shapes.json")
    return json.loads(path.read_text(encoding="utf-8"))


def published_shape(name: str, part: str) -> dict[str, Any] | None:
    """The config of a part of a well-known model, or None where none is written down.

    Args:
        name: the hub id.
        part: `unet`, `vae`, `scheduler`, `text_encoder` ... of a base; `encoder` and `tokenizer` of
            a multilingual text encoder; `clip`.
    """
    config = _shapes().get(name, {}).get(part)
    return None if config is None else dict(config)
