"""A trained model: texts of any language and pictures as rows of one space.

embedder = mclip.METHOD.load_embedder("runs/mclip/model")
cosines = embedder.embed_text(["ein roter Stern"]) @ embedder.embed_image([picture]).T
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from crosslingual.data.pictures import fit_picture, pixels_to_images
from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual.frozen.encoders import MultilingualEncoder, load_multilingual_encoder
from crosslingual.frozen.weights import weights_hash
from mclip.artifact import load_model
from mclip.method import TriKD

# N rows in all, B rows at a time, D width of the space


@dataclass(frozen=True)
class Embedder:
    """Pictures and texts to L2-normalised fp32 rows on the CPU.

    Attributes:
        name: the folder or id that it was loaded from.
        weights: hash of that folder's weights, None for a hub id.
        clip: embeds pictures, and texts too where there are no projectors.
        encoder: the multilingual encoder, None for a CLIP as it is.
        projectors: mCLIP's, None for a CLIP as it is.
        resolution: edge of the pictures in pixels, before CLIP's centre crop.
        batch_size: pictures or texts at a time.
    """

    name: str
    weights: str | None
    clip: FrozenCLIP
    encoder: MultilingualEncoder | None
    projectors: TriKD | None
    resolution: int
    batch_size: int = 128

    @property
    def width(self) -> int:
        """D."""
        return self.clip.width if self.projectors is None else self.encoder.width

    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts in any language as rows (N, D), in their order. Texts above the encoder's limit are
        cut with their end token kept.

        Texts of similar length share a batch, since its longest text decides what it costs.
        """
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        embed = self._embed_captions if self.projectors is not None else self.clip.encode_texts
        rows_ND = torch.empty(len(texts), self.width)
        for start in range(0, len(texts), self.batch_size):
            chosen = order[start : start + self.batch_size]
            rows_ND[chosen] = _unit(embed([texts[place] for place in chosen]))
        return rows_ND

    def embed_image(self, pictures: Iterable[Image.Image]) -> Tensor:
        """Pictures of any size as rows (N, D)."""
        return self.embed_pixels(fit_picture(picture, self.resolution) for picture in pictures)

    def embed_pixels(self, pictures: Iterable[np.ndarray]) -> Tensor:
        """Pictures (resolution, resolution, 3) in bytes as rows (N, D), one batch in memory at a
        time.
        """
        pictures = iter(pictures)
        rows = [
            self.embed_images(pixels_to_images(np.stack(batch)))
            for batch in iter(lambda: list(islice(pictures, self.batch_size)), [])
        ]
        return torch.cat(rows) if rows else torch.empty(0, self.width)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], as the loader gives them, as rows (B, D)."""
        embeds = self.clip.encode_images(images)
        if self.projectors is not None:
            embeds = self.projectors.clip_projector(embeds)
        return _unit(embeds)

    @torch.no_grad()
    def _embed_captions(self, texts: list[str]) -> Tensor:
        states = self.encoder.encode_packed(texts)
        return self.projectors.x_projector(states.values, states.lengths)


def load_embedder(path: str, resolution: int | None = None, batch_size: int = 128) -> Embedder:
    """Loads a trained model with its frozen parts, or a CLIP as it is.

    Args:
        path: a folder that `mclip export` or training wrote; or a CLIP's hub id, folder or
            testbed:clip.
        resolution: edge of the pictures in pixels before CLIP's centre crop; the model's, or the
            CLIP's own size, if None.
        batch_size: pictures or texts at a time.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is neither a model of mCLIP nor a CLIP, or its frozen parts have changed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    file = Path(path) / "config.json"
    encoder = projectors = None
    if file.is_file() and "method" in json.loads(file.read_text(encoding="utf-8")):
        projectors, config = load_model(path)
        clip = load_clip(config["clip"], config["clip_revision"])
        name, revision = config["text_encoder"], config["text_encoder_revision"]
        encoder = load_multilingual_encoder(name, revision, config["max_length"])
        resolution = resolution or config["resolution"]
        encoder.model.to(device), projectors.to(device)
    else:
        clip = load_clip(path)
    clip.model.to(device)
    size = resolution or clip.image_size
    return Embedder(path, weights_hash(path), clip, encoder, projectors, size, batch_size)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1).cpu()
