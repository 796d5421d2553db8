"""A trained model: texts of any language and pictures as rows of one space.

embedder = mclip.METHOD.load_embedder("runs/mclip/model")
cosines = embedder.embed_text(["ein roter Stern"]) @ embedder.embed_image([picture]).T
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from crosslingual.evaluation import embedder
from crosslingual.frozen.clip import load_clip
from crosslingual.frozen.encoders import MultilingualEncoder, load_multilingual_encoder
from crosslingual.frozen.weights import weights_hash
from mclip.artifact import load_model
from mclip.method import TriKD


@dataclass(frozen=True, kw_only=True)
class Embedder(embedder.Embedder):
    """A CLIP behind mCLIP's projectors, or as it is.

    Attributes:
        weights: hash of the weights of the folder that it was loaded from, None for a hub id.
        encoder: the multilingual encoder, None for a CLIP as it is.
        projectors: mCLIP's, None for a CLIP as it is.
    """

    weights: str | None
    encoder: MultilingualEncoder | None
    projectors: TriKD | None

    @property
    def width(self) -> int:
        """D, the size of a row."""
        return self.clip.width if self.projectors is None else self.encoder.width

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Rows (B, D) of texts, not normalised."""
        if self.projectors is None:
            return self.clip.encode_texts(texts)
        states = self.encoder.encode_packed(texts)
        return self.projectors.x_projector(states.values, states.lengths)

    def encode_images(self, images: Tensor) -> Tensor:
        """Rows (B, D) of pictures (B, 3, H, W) in [-1, 1], not normalised."""
        embeds = self.clip.encode_images(images)
        return embeds if self.projectors is None else self.projectors.clip_projector(embeds)


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
    return Embedder(
        clip=clip,
        resolution=resolution or clip.image_size,
        batch_size=batch_size,
        weights=weights_hash(path),
        encoder=encoder,
        projectors=projectors,
    )
