"""The inputs of a metric: one language's prompts and pictures, and the networks that measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual_benchmarks.generation.pictures import Drawn
from crosslingual_benchmarks.generation.prompts import Prompt
from crosslingual_benchmarks.metrics.features import (
    INCEPTION,
    Extractor,
    clip_extractor,
    image_features,
    load_extractor,
)
from crosslingual_benchmarks.metrics.pictures import Pictures

# N pictures, M reference pictures, D width of the features

Pairs = Sequence[tuple[Prompt, Drawn]]


@dataclass(frozen=True)
class Yardstick:
    """The networks and true pictures of a measurement; one serves every arm and language.

    `references_MD` are features of the true pictures, which `words` describe for the protocol.
    `shows` is a world's judge: whether a picture shows a scene. `place`, of a judge that ranks all
    scenes, says how many others fit a picture better.
    """

    clip: FrozenCLIP
    extractor: Extractor | None = None
    references_MD: Tensor | None = None
    words: dict[str, Any] = field(default_factory=dict)
    shows: Callable[[Any, Any], bool] | None = None
    place: Callable[[Any, Any], int] | None = None


def load_yardstick(
    clip: str,
    extractor: str,
    references: Pictures | None,
    resolution: int,
    shows: Callable[[Any, Any], bool] | None = None,
    place: Callable[[Any, Any], int] | None = None,
) -> Yardstick:
    """Loads the networks and reads the true pictures.

    Without references FID and KID are left out. For Inception true pictures are brought to the
    resolution of the generated ones.

    Raises:
        FileNotFoundError: a network, or a picture, is not there.
        ValueError: a network is of another kind, a picture is broken, or there are fewer than 2.
    """
    loaded = load_clip(clip)
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
    if references is None:
        return Yardstick(loaded, shows=shows, place=place)
    reader = (
        clip_extractor(loaded)
        if extractor == clip
        else load_extractor(extractor, resolution=resolution if extractor == INCEPTION else None)
    )
    found = image_features(references, reader)
    told = found.protocol
    words = {"extractor": f"{told['extractor']} {told['layer']}, {told['resize']}"}
    words |= {"num_references": len(found.rows_ND), "kid": "unbiased, of all pictures"}
    return Yardstick(loaded, reader, found.rows_ND, words, shows, place)


@dataclass(frozen=True)
class Sample:
    """One language's pictures.

    A picture that is not finite is black, counts in every mean, and is never right.

    Wrong captions are taken from `all_prompts`, the set in all languages. 0 resamplings leave an
    interval out.
    """

    yardstick: Yardstick
    general: Pairs
    culture: Pairs
    all_prompts: Sequence[Prompt]
    num_bootstrap: int = 1000
    num_fid_bootstrap: int = 100
    seed: int = 0

    @cached_property
    def features_ND(self) -> Tensor:
        """The features of the general pictures, (N, D), by the yardstick's extractor."""
        return image_features(paths_of(self.general), self.yardstick.extractor).rows_ND


def paths_of(pairs: Pairs) -> list[Path]:
    """The pictures' files."""
    return [drawn.path for _, drawn in pairs]
