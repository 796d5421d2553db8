"""Text-space MSE: a small adapter that learns to match the English encoder's states, from captions
only.
"""

from typing import Any

from crosslingual.method import Method

__all__ = ["METHOD", "attach"]


def attach(pipe: Any, adapter: str) -> Any:
    """Makes a diffusers pipeline on the adapter's base read its languages; see
    `template.pipeline.attach`.
    """
    from template.pipeline import attach as attach_adapter

    return attach_adapter(pipe, adapter)


def _load_pipeline(path: str, base: str | None = None) -> Any:
    from template.pipeline import load_pipeline

    return load_pipeline(path, base)


METHOD = Method(
    name="template",
    paper="text-space MSE, after GlueGen, arXiv 2303.10056",
    load_pipeline=_load_pipeline,
    load_embedder=None,
)
