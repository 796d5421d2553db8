"""What a metric reads: one language's prompts and pictures, and what measures them."""

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
    """What pictures are measured with; one serves every arm and language.

    Attributes:
        clip: for the CLIP score and the choice among captions.
        extractor: of the features for FID and KID.
        references_MD: features of the true pictures, None where there are none.
        words: the references in a protocol's words.
        shows: (picture, scene) to whether the picture shows the scene; None without a judge.
    """

    clip: FrozenCLIP
    extractor: Extractor | None = None
    references_MD: Tensor | None = None
    words: dict[str, Any] = field(default_factory=dict)
    shows: Callable[[Any, Any], bool] | None = None


def load_yardstick(
    clip: str,
    extractor: str,
    references: Pictures | None,
    resolution: int,
    shows: Callable[[Any, Any], bool] | None = None,
) -> Yardstick:
    """Loads the networks and reads the true pictures.

    Args:
        clip: of `crosslingual.frozen.clip.load_clip`.
        extractor: of `metrics.features.load_extractor`.
        references: true pictures, a folder or a list; None leaves FID and KID out.
        resolution: of the generated pictures, which Inception's true ones are brought to.
        shows: a world's judge.

    Raises:
        FileNotFoundError: a network, or a picture, is not there.
        ValueError: a network is of another kind, a picture is broken, or there are fewer than 2.
    """
    loaded = load_clip(clip)
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
    if references is None:
        return Yardstick(loaded, shows=shows)
    reader = (
        clip_extractor(loaded)
        if extractor == clip
        else load_extractor(extractor, resolution=resolution if extractor == INCEPTION else None)
    )
    found = image_features(references, reader)
    told = found.protocol
    words = {"extractor": f"{told['extractor']} {told['layer']}, {told['resize']}"}
    words |= {"num_references": len(found.rows_ND), "kid": "unbiased, of all pictures"}
    return Yardstick(loaded, reader, found.rows_ND, words, shows)


@dataclass(frozen=True)
class Sample:
    """One language's pictures.

    A picture that is not finite is black, counts in every mean, and is never right.

    Attributes:
        yardstick: what they are measured with.
        general: prompts that are of no culture, with their pictures.
        culture: prompts of a culture, with their pictures.
        all_prompts: of the set, in all languages; wrong captions are taken from it.
        num_bootstrap: resamplings for the interval of a mean; 0 leaves it out.
        num_fid_bootstrap: resamplings of FID and KID, each a distance of its own.
        seed: of the resampling.
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
