"""PEA-Diffusion: a small adapter, distilled through a frozen UNet, that reads other languages
(arXiv 2311.17086).
"""

from typing import Any

from crosslingual.method import Method

__all__ = ["METHOD", "attach"]


def attach(pipe: Any, adapter: str) -> Any:
    """Makes a diffusers pipeline on the adapter's base read its languages; see
    `pea.pipeline.attach`.
    """
    from pea.pipeline import attach as attach_adapter

    return attach_adapter(pipe, adapter)


def _load_pipeline(path: str, base: str | None = None) -> Any:
    from pea.pipeline import load_pipeline

    return load_pipeline(path, base)


METHOD = Method(
    name="pea",
    paper="PEA-Diffusion, arXiv 2311.17086",
    load_pipeline=_load_pipeline,
    load_embedder=None,
)
