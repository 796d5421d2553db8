"""Embeds texts and pictures in AltCLIP's joint space.

embedder = altdiffusion.METHOD.load_embedder("runs/altclip/altclip")
cosines = embedder.embed_text(["ein roter Stern"]) @ embedder.embed_image([picture]).T
"""

import torch

from altdiffusion.text.artifact import load_altclip
from crosslingual.evaluation.embedder import Embedder


def load_embedder(path: str, batch_size: int = 128) -> Embedder:
    """Loads an AltCLIP's folder, or a CLIP for comparison, ready to embed."""
    clip = load_altclip(path)
    clip.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Embedder(clip=clip, resolution=clip.image_size, batch_size=batch_size)
