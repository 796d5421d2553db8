"""Embeds texts and pictures in AltCLIP's joint space.

embedder = altdiffusion.METHOD.load_embedder("runs/altclip/altclip")
cosines = embedder.embed_text(["ein roter Stern"]) @ embedder.embed_image([picture]).T
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from altdiffusion.text.artifact import load_altclip
from crosslingual.data.pictures import fit_picture, pixels_to_images
from crosslingual.frozen.clip import FrozenCLIP

# N rows in all, B rows at a time, J width of the joint space


@dataclass(frozen=True)
class Embedder:
    """Embeds pictures and texts as L2-normalised fp32 rows on the CPU.

    Attributes:
        clip: an AltCLIP or a CLIP.
        batch_size: pictures or texts per batch.
    """

    clip: FrozenCLIP
    batch_size: int = 128

    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts in any language as rows (N, J), in their order. Texts of similar length share a
        batch, since its longest text sets its cost.
        """
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows_NJ = torch.empty(len(texts), self.clip.width)
        for start in range(0, len(texts), self.batch_size):
            chosen = order[start : start + self.batch_size]
            embeds = self.clip.encode_texts([texts[place] for place in chosen])
            rows_NJ[chosen] = F.normalize(embeds, dim=1).cpu()
        return rows_NJ

    def embed_image(self, pictures: Iterable[Image.Image]) -> Tensor:
        """Pictures of any size as rows (N, J)."""
        pixels = (fit_picture(picture, self.clip.image_size) for picture in pictures)
        rows = [torch.empty(0, self.clip.width)]
        while batch := list(islice(pixels, self.batch_size)):
            rows.append(self.embed_images(pixels_to_images(np.stack(batch))))
        return torch.cat(rows)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], as the loader gives them, as rows (B, J)."""
        return F.normalize(self.clip.encode_images(images), dim=1).cpu()


def load_embedder(path: str, batch_size: int = 128) -> Embedder:
    """Loads an AltCLIP's folder, or a CLIP for comparison, ready to embed."""
    clip = load_altclip(path)
    clip.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Embedder(clip, batch_size)
