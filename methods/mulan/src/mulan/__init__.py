"""MuLan: an adapter that learns from English on a multilingual encoder (arXiv 2412.01271)."""

from typing import Any

from crosslingual.method import Method

__all__ = ["METHOD", "attach", "encode"]


def attach(pipe: Any, adapter: str, language: str | None = None) -> Any:
    """Makes a diffusers pipeline on the adapter's base read the encoder's languages; see
    `mulan.pipeline.attach`.
    """
    from mulan.pipeline import attach as attach_adapter

    return attach_adapter(pipe, adapter, language)


def encode(
    adapter: str, prompts: list[str], negative_prompts: list[str] | None = None, **options: Any
) -> dict[str, Any]:
    """A pipeline's keyword arguments for prompts, so that drawing needs no encoder; see
    `mulan.pipeline.encode`.
    """
    from mulan.pipeline import encode as encode_prompts

    return encode_prompts(adapter, prompts, negative_prompts, **options)


def _load_pipeline(path: str, base: str | None = None) -> Any:
    from mulan.pipeline import load_pipeline

    return load_pipeline(path, base)


METHOD = Method(
    name="mulan", paper="MuLan, arXiv 2412.01271", load_pipeline=_load_pipeline, load_embedder=None
)
