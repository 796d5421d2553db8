"""IAP: a text encoder for another language, aligned with the English one through the frozen UNet's
cross-attention (arXiv 2305.11540).
"""

from typing import Any

from crosslingual.method import Method

__all__ = ["METHOD", "attach"]


def attach(pipe: Any, folder: str) -> Any:
    """Makes a diffusers pipeline on the encoder's base read its languages; see
    `iap.pipeline.attach`.
    """
    from iap.pipeline import attach as attach_encoder

    return attach_encoder(pipe, folder)


def _load_pipeline(path: str, base: str | None = None) -> Any:
    from iap.pipeline import load_pipeline

    return load_pipeline(path, base)


def _load_embedder(path: str) -> Any:
    from iap.pipeline import load_embedder

    return load_embedder(path)


METHOD = Method(
    name="iap",
    paper="IAP, arXiv 2305.11540",
    load_pipeline=_load_pipeline,
    load_embedder=_load_embedder,
)
