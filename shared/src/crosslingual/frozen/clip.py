"""The frozen CLIP: pictures and English texts in its joint space."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.shapes import model_config
from crosslingual.frozen.tokens import tokenize
from crosslingual.frozen.weights import load_frozen, open_tokenizer, reading, resolve

# B pictures or texts, P width of the joint space


@dataclass
class FrozenCLIP:
    """A frozen CLIP with what prepares its inputs.

    Attributes:
        name: the id or folder it was loaded from.
        model: transformers' CLIPModel.
        tokenizer: of its texts.
        image_mean: of pixels in [0, 1], one value for each channel.
        image_std: deviation, likewise.
        image_size: edge of its square pictures in pixels.
        max_length: tokens of a text, start and end included.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    image_size: int
    max_length: int

    @cached_property
    def width(self) -> int:
        """P, the size of a joint embedding."""
        return int(self.model.config.projection_dim)

    def preprocess(self, images: Tensor) -> Tensor:
        """The input of the vision tower for pictures (B, 3, H, W) in [-1, 1]: their centre,
        normalised by CLIP's mean and deviation, in the model's dtype and place.

        Raises:
            ValueError: a picture is smaller than CLIP's.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.image_size:
            raise ValueError(
                f"pictures of {width} x {height} are smaller than the {self.image_size} pixels of "
                f"{self.name}: raise the resolution"
            )
        top, left = (height - self.image_size) // 2, (width - self.image_size) // 2
        centre = images[..., top : top + self.image_size, left : left + self.image_size]
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.image_mean, self.image_std))
        mean, std = mean.to(images.device), std.to(images.device)
        # ((x + 1) / 2 - mean) / std in one step
        pixels = torch.addcmul((0.5 - mean) / std, centre, 0.5 / std)
        return pixels.to(self.model.device, self.model.dtype)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Joint embeddings (B, P) of the centres of pictures (B, 3, H, W) in [-1, 1], fp32, not
        normalised; errors as `preprocess`.
        """
        seen = self.model.vision_model(pixel_values=self.preprocess(images))
        return self.model.visual_projection(seen.pooler_output).float()

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Tensor:
        """Joint embeddings (B, P) of texts, fp32, not normalised; longer texts are cut to
        `max_length` with the end token kept, and reported.
        """
        tokens = tokenize(self.tokenizer, texts, self.max_length).to(self.model.device)
        read = self.model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask)
        return self.model.text_projection(read.pooler_output).float()


def load_clip(
    name: str, revision: str | None = None, dtype: torch.dtype = torch.float32
) -> FrozenCLIP:
    """Loads a CLIP (a folder, a hub id or WORLD:NAME such as `testbed:clip`) with its tokenizer and
    the constants of its preprocessing; errors as `load_frozen` and `clip_config`.
    """
    from transformers import CLIPImageProcessorPil, CLIPModel

    config = clip_config(name, revision)
    model = load_frozen(CLIPModel, name, revision=revision, dtype=dtype)
    tokenizer = open_tokenizer(name, revision)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    try:
        constants, _ = CLIPImageProcessorPil.get_image_processor_dict(
            resolve(name), revision=revision
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{name} has no preprocessor_config.json, which says how its pictures are normalised"
        ) from error
    with reading(name, "preprocessor_config.json"):
        mean, std = (tuple(map(float, constants[part])) for part in ("image_mean", "image_std"))
    size, length = config.vision_config.image_size, config.text_config.max_position_embeddings
    return FrozenCLIP(name, model, tokenizer, mean, std, int(size), int(length))


def clip_config(name: str, revision: str | None = None) -> Any:
    """A CLIP's config, by `model_config`; a ValueError for another model's."""
    config = model_config(name, revision, "clip", "CLIP")
    if config.model_type != "clip":
        raise ValueError(f"{name} is a {config.model_type} model, not a CLIP")
    return config


def clip_shape(name: str, revision: str | None = None) -> tuple[int, int]:
    """Width of a CLIP's joint space and the edge of its pictures in pixels, without its weights."""
    config = clip_config(name, revision)
    return int(config.projection_dim), int(config.vision_config.image_size)


def clip_on_meta(name: str, revision: str | None = None) -> int:
    """Parameters of a CLIP, from its config alone."""
    from transformers import CLIPModel

    with torch.device("meta"):
        return sum(p.numel() for p in CLIPModel(clip_config(name, revision)).parameters())
