"""What a method's package registers under the entry point group `crosslingual.methods`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """What a method's package registers under the entry point group `crosslingual.methods`.

    Attributes:
        name: the package's name, such as `pea`.
        paper: the published method, with its identifier.
        load_pipeline: `(adapter_path, base) -> diffusers pipeline` whose prompts may be in the
            adapter's languages, or None where the method does not generate.
        load_embedder: `(path) -> object with embed_text(list[str]) and
            embed_image(list[PIL.Image])`, each returning L2-normalised fp32 rows, or None where the
            method has no shared space.
    """

    name: str
    paper: str
    load_pipeline: Callable[[str, str], Any] | None
    load_embedder: Callable[[str], Any] | None
