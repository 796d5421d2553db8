"""The arms that every method has to beat; found by entry point, as the methods are."""

from typing import Any

from crosslingual.method import Method


def _load_finetuned(path: str, base: str | None = None) -> Any:
    from crosslingual_benchmarks.baselines.full_finetuning import load_pipeline

    return load_pipeline(path)


def _load_translating_pipeline(path: str, base: str | None = None) -> Any:
    from crosslingual_benchmarks.baselines.translate_test import load_pipeline

    return load_pipeline(path, base)


def _load_translating_embedder(path: str) -> Any:
    from crosslingual_benchmarks.baselines.translate_test import load_embedder

    return load_embedder(path)


def _load_routed_pipeline(path: str, base: str | None = None) -> Any:
    from crosslingual_benchmarks.baselines.router import load_pipeline

    return load_pipeline(path, base)


FULL_FINETUNING = Method(
    name="full_finetuning",
    paper="full fine-tuning of UNet and text encoder by the diffusion loss",
    load_pipeline=_load_finetuned,
    load_embedder=None,
)

TRANSLATE_TEST = Method(
    name="translate_test",
    paper="machine translation of the prompt, then the English model",
    load_pipeline=_load_translating_pipeline,
    load_embedder=_load_translating_embedder,
)

ROUTER = Method(
    name="router",
    paper="several adapters, of which a prompt's script chooses one",
    load_pipeline=_load_routed_pipeline,
    load_embedder=None,
)
