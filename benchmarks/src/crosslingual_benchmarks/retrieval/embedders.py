"""Embedders of texts and pictures: an installed method's, a CLIP as it is, or chance."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from crosslingual.data.pictures import fit_picture, pixels_to_images
from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual_benchmarks.methods import find_method, installed_methods

CLIP = "clip"
RANDOM = "random"

# N rows, D width of the space


class Embedder(Protocol):
    """The result of a method's `load_embedder`, see `crosslingual.method.Method`."""

    def embed_text(self, texts: list[str]) -> Tensor:
        """L2-normalised fp32 rows (N, D)."""

    def embed_image(self, pictures: list[Image.Image]) -> Tensor:
        """L2-normalised fp32 rows (N, D)."""


@dataclass(frozen=True)
class PlainCLIP:
    """A CLIP as it is, which reads English: the floor in other languages, the ceiling in it."""

    clip: FrozenCLIP

    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts as rows (N, D); longer ones than CLIP reads are cut with their end token kept."""
        return F.normalize(self.clip.encode_texts(texts), dim=1).cpu()

    def embed_image(self, pictures: list[Image.Image]) -> Tensor:
        """Pictures of any size as rows (N, D)."""
        pixels = np.stack([fit_picture(picture, self.clip.image_size) for picture in pictures])
        return F.normalize(self.clip.encode_images(pixels_to_images(pixels)), dim=1).cpu()


@dataclass(frozen=True)
class RandomEmbedder:
    """Chance: each content has a unit vector of its own, drawn by its hash and the seed. Equal
    texts have equal rows, and Recall@K among N candidates is K/N in the mean.
    """

    seed: int
    width: int = 64

    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts as rows (N, D)."""
        return self._rows(b"text", (text.encode() for text in texts))

    def embed_image(self, pictures: list[Image.Image]) -> Tensor:
        """Pictures as rows (N, D), by their pixels."""
        return self._rows(b"picture", (picture.convert("RGB").tobytes() for picture in pictures))

    def _rows(self, kind: bytes, contents: Iterable[bytes]) -> Tensor:
        rows = []
        for content in contents:
            digest = hashlib.sha256(b"%d %s " % (self.seed, kind) + content).digest()
            generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
            rows.append(generator.standard_normal(self.width, dtype=np.float32))
        return F.normalize(torch.from_numpy(np.stack(rows)), dim=1)


def load_embedder(method: str, path: str | None, seed: int = 0) -> Embedder:
    """Loads the embedder that `--method` and `--path` name.

    `path` is the method's export, or a CLIP's hub id, folder or testbed:clip; `random` takes a seed
    and no path.

    Raises:
        FileNotFoundError: nothing at the path.
        ValueError: no such method, one without an embedder (those with one are named), no path, or
            a path to something else.
    """
    if method == RANDOM:
        return RandomEmbedder(seed)
    if method == CLIP:
        clip = load_clip(_given(path, "a CLIP's hub id or folder, or testbed:clip"))
        clip.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return PlainCLIP(clip)
    found = find_method(method)
    if found.load_embedder is None:
        methods = installed_methods()
        with_one = ", ".join([CLIP, RANDOM, *(n for n, m in methods.items() if m.load_embedder)])
        without = ", ".join(n for n, m in methods.items() if m.load_embedder is None)
        raise ValueError(
            f"{method} has no space that texts and pictures share; with one: {with_one}; "
            f"without: {without}"
        )
    return found.load_embedder(_given(path, f"what `{method} export` wrote"))


def _given(path: str | None, what: str) -> str:
    if not path:
        raise ValueError(f"give --path: {what}")
    return path
