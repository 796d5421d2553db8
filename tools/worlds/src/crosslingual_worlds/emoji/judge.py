"""The judge: which emoji a picture shows, by the nearest real picture of three sets.

Pictures are compared at 16 x 16 pixels, as they are and drawn smaller, so that a few pixels of
place, size, noise or compression change little. Nothing is learnt, so nothing that a model of this
world gets wrong is wrong in the judge as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from crosslingual_worlds.emoji.names import Emoji, all_emoji
from crosslingual_worlds.emoji.pictures import RESOLUTION, load_pictures

SETS = ("noto", "fluent", "twemoji")  # OpenMoji stays unseen
SHRUNK = 56  # pixels a side of the second rendering
POOL = 4


def features(pictures_BCHW: Tensor) -> Tensor:
    """Mean colours of blocks of 4 x 4 pixels: (B, 3, 64, 64) in [0, 1] to (B, 768)."""
    return F.avg_pool2d(pictures_BCHW, POOL).flatten(1)


def to_tensor(pictures: Sequence[np.ndarray | Image.Image]) -> Tensor:
    """RGB pictures as (B, 3, 64, 64) in [0, 1]; other sizes are resized."""
    rows = [picture if isinstance(picture, np.ndarray) else _fit(picture) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class Judge:
    """The gallery of real pictures.

    Attributes:
        emoji: what it chooses among.
        gallery_NF: features of every picture.
        owners_N: the index in `emoji` that each picture shows.
    """

    emoji: tuple[Emoji, ...]
    gallery_NF: Tensor
    owners_N: Tensor

    @classmethod
    def open(cls, emoji: Sequence[Emoji] | None = None, sets: Sequence[str] = SETS) -> "Judge":
        """The judge over `emoji`, by default all distinct ones, taught or not."""
        chosen = tuple(e for e in all_emoji() if e.is_distinct) if emoji is None else tuple(emoji)
        pictures, owners = [], []
        for one in map(load_pictures, sets):
            found = [(i, one[e.key]) for i, e in enumerate(chosen) if e.key in one]
            owners += [i for i, _ in found]
            pictures.append(to_tensor([picture for _, picture in found]))
        real = torch.cat(pictures)
        gallery = torch.cat([features(real), features(shrink(real, SHRUNK))])
        return cls(chosen, gallery, torch.tensor(owners + owners))

    def index_of(self, emoji: Emoji) -> int:
        """Its place in `emoji`.

        Raises:
            ValueError: the judge does not know it.
        """
        if emoji not in self._indices:
            raise ValueError(f"the judge knows no {emoji.name!r}: open it over these emoji")
        return self._indices[emoji]

    @cached_property
    def _indices(self) -> dict[Emoji, int]:
        return {emoji: index for index, emoji in enumerate(self.emoji)}

    def rank(self, pictures: Tensor) -> Tensor:
        """Every emoji's place for each picture: (B, 3, 64, 64) in [0, 1] to (B, len(emoji)).

        0 is the nearest. Distances of an emoji are to the nearest of its pictures.
        """
        distances_BN = torch.cdist(features(pictures), self.gallery_NF)
        best = distances_BN.new_full((len(pictures), len(self.emoji)), float("inf"))
        owners = self.owners_N.expand(len(pictures), -1)
        best.scatter_reduce_(1, owners, distances_BN, reduce="amin")
        return best.argsort(dim=1).argsort(dim=1)

    def accuracy(self, pictures: Tensor, shown: Sequence[Emoji]) -> dict[str, float]:
        """The share of pictures that show what they should, among all names.

        Returns:
            `at_1` and `at_5`.

        Raises:
            ValueError: an emoji that the judge does not know.
        """
        right = torch.tensor([self.index_of(emoji) for emoji in shown])
        place = self.rank(pictures).gather(1, right[:, None])
        return {f"at_{k}": float((place < k).float().mean()) for k in (1, 5)}


def shrink(pictures_BCHW: Tensor, edge: int) -> Tensor:
    """The pictures drawn `edge` pixels wide in the middle of a white canvas of the same size."""
    small = F.interpolate(pictures_BCHW, size=(edge, edge), mode="bilinear", antialias=True)
    before = (RESOLUTION - edge) // 2
    after = RESOLUTION - edge - before
    return F.pad(small, (before, after, before, after), value=1.0)


def _fit(picture: Image.Image) -> np.ndarray:
    size = (RESOLUTION, RESOLUTION)
    picture = picture.convert("RGB")
    return np.asarray(picture if picture.size == size else picture.resize(size))
