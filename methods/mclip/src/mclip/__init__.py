"""mCLIP: CLIP's space for other languages, by triangle knowledge distillation of two projectors
(ACL 2023).
"""

from typing import Any

from crosslingual.method import Method

__all__ = ["METHOD"]


def _load_embedder(path: str) -> Any:
    from mclip.pipeline import load_embedder

    return load_embedder(path)


METHOD = Method(
    name="mclip",
    paper="mCLIP, ACL 2023 (2023.acl-long.728)",
    load_pipeline=None,
    load_embedder=_load_embedder,
)
