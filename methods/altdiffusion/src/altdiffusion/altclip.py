"""The whole AltCLIP: a trained student beside the vision tower of the CLIP that taught it, as a
`transformers.AltCLIPModel` folder, and texts and pictures as rows of its joint space.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from altdiffusion.text_encoder import TextEncoder, save_text_encoder
from crosslingual.adapter.artifact import load_strict
from crosslingual.data.pictures import fit_picture, pixels_to_images
from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual.frozen.encoders import encoder_config
from crosslingual.frozen.weights import load_frozen

# N rows in all, B rows at a time, J width of the joint space


def build_altclip(student: nn.Module, clip: nn.Module) -> nn.Module:
    """An AltCLIPModel of a student and of all of a CLIPModel but its text tower.

    CLIP's own text projection follows the student, whose vector stands for what that projection
    read before.
    """
    from transformers import AltCLIPConfig, AltCLIPModel

    vision = clip.config.vision_config.to_dict() | {"model_type": "altclip_vision_model"}
    config = AltCLIPConfig(
        text_config=student.config.to_dict(),
        vision_config=vision,
        projection_dim=clip.config.projection_dim,
    )
    model = AltCLIPModel(config)
    kept = {k: v for k, v in clip.state_dict().items() if not k.startswith("text_model.")}
    texts = {f"text_model.{name}": tensor for name, tensor in student.state_dict().items()}
    load_strict(model, {**kept, **texts})
    return model.eval().requires_grad_(False)


def save_altclip(folder: Path, encoder: TextEncoder, clip: FrozenCLIP) -> None:
    """Writes model, tokenizer and the constants of pictures."""
    from transformers import CLIPImageProcessorPil

    whole = TextEncoder(
        build_altclip(encoder.model, clip.model), encoder.tokenizer, encoder.max_length
    )
    save_text_encoder(whole, folder)
    size = clip.image_size
    CLIPImageProcessorPil(
        image_mean=clip.image_mean,
        image_std=clip.image_std,
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
    ).save_pretrained(folder)


def load_altclip(name: str) -> FrozenCLIP:
    """An AltCLIP's folder, or a CLIP for comparison, frozen, with what prepares its inputs.

    Raises:
        FileNotFoundError: nothing there, or no safetensors.
        ValueError: neither an AltCLIPModel nor a CLIP, or a key is missing or not expected.
    """
    from transformers import AltCLIPModel, AutoTokenizer, CLIPImageProcessorPil

    config = encoder_config(name)
    if config.model_type != "altclip":
        return load_clip(name)
    model = load_frozen(AltCLIPModel, name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    constants, _ = CLIPImageProcessorPil.get_image_processor_dict(name)
    mean, std = (tuple(map(float, constants[part])) for part in ("image_mean", "image_std"))
    size, length = config.vision_config.image_size, min(77, int(tokenizer.model_max_length))
    return FrozenCLIP(name, model, tokenizer, mean, std, int(size), length)


@dataclass(frozen=True)
class Embedder:
    """Pictures and texts to L2-normalised fp32 rows on the CPU.

    Attributes:
        clip: an AltCLIP or a CLIP.
        batch_size: pictures or texts at a time.
    """

    clip: FrozenCLIP
    batch_size: int = 128

    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts in any language as rows (N, J), in their order; texts of similar length pass
        together, since a batch costs what its longest one does.
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
        rows = [
            self.embed_images(pixels_to_images(np.stack(batch)))
            for batch in _batched(pixels, self.batch_size)
        ]
        return torch.cat(rows) if rows else torch.empty(0, self.clip.width)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], as the loader gives them, as rows (B, J)."""
        return F.normalize(self.clip.encode_images(images), dim=1).cpu()


def load_embedder(path: str) -> Embedder:
    """An AltCLIP's folder, or a CLIP for comparison, ready to embed."""
    clip = load_altclip(path)
    clip.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Embedder(clip)


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
