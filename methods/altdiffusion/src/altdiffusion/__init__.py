"""AltDiffusion: a multilingual student of CLIP's text encoder, and a UNet that learns to read it
(arXiv 2211.06679, 2308.09991).
"""

from typing import Any

from crosslingual.method import Method

__all__ = ["METHOD", "attach"]


def attach(pipe: Any, text_encoder: str) -> Any:
    """Gives a diffusers pipeline the trained text encoder; see `altdiffusion.pipeline.attach`."""
    from altdiffusion.pipeline import attach as attach_encoder

    return attach_encoder(pipe, text_encoder)


def _load_pipeline(path: str, base: str | None = None) -> Any:
    from altdiffusion.pipeline import load_pipeline

    return load_pipeline(path, base)


def _load_embedder(path: str) -> Any:
    from altdiffusion.text.pipeline import load_embedder

    return load_embedder(path)


METHOD = Method(
    name="altdiffusion",
    paper="AltCLIP, arXiv 2211.06679; AltDiffusion, arXiv 2308.09991",
    load_pipeline=_load_pipeline,
    load_embedder=_load_embedder,
)
