"""The shapes of well-known models by their hub id, so that `NAME info` counts them without network,
and `tools/random_base.py` builds them without weights. Values that are the libraries' defaults are
left out.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from crosslingual.frozen.weights import reading, resolve
from crosslingual.worlds import find_worlds


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    return json.loads(Path(__file__).with_name("published_shapes.json").read_text("utf-8"))


def published_shape(name: str, part: str) -> dict[str, Any] | None:
    """The config of a part of a well-known model, or None where none is written down, or where a
    folder has that name: `encoders/HUB_ID` is known until it is there.

    Args:
        name: the hub id, or WORLD:NAME of a model that its world does not ship.
        part: `unet`, `vae`, `scheduler`, `text_encoder` ... of a base; `encoder` and `tokenizer` of
            a multilingual text encoder; `clip`.
    """
    if Path(name).is_dir():
        return None
    prefix, _, model = name.partition(":")
    world = find_worlds().get(prefix) if model else None
    shapes = _shapes().get(name, {}) if world is None else world.shapes.get(model, {})
    return dict(shapes[part]) if part in shapes else None


def model_config(name: str, revision: str | None, part: str, kind: str) -> Any:
    """The config of a model of transformers: of a folder, a hub id or WORLD:NAME. That of a
    well-known one, a part of `published_shape`, needs no network. Errors, as those of `reading`,
    call the model a `kind`.
    """
    from transformers import AutoConfig

    known = published_shape(name, part)
    if known is not None:
        return AutoConfig.for_model(**known)
    with reading(name, kind):
        config = AutoConfig.from_pretrained(
            resolve(name), revision=revision, trust_remote_code=False
        )
    if getattr(config, "auto_map", None):
        raise ValueError(f"{name} asks for code of its own, which is never run here; give another")
    return config
