"""CLIP's joint space, in which `objective: clip_attention` compares the languages.

Shapes: B rows, N patches of a picture, P width of the joint space.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual.frozen.tokens import tokenize
from iap.settings import TrainSettings


class ClipSpace(NamedTuple):
    """What a step needs of a CLIP.

    Attributes:
        project: CLIP's text projection, from token states to (..., P).
        scale: what CLIP multiplies cosines by, the inverse of its temperature.
    """

    project: nn.Module
    scale: float


def open_clip(settings: TrainSettings, empty_MD: Tensor) -> FrozenCLIP:
    """Loads the run's CLIP.

    Args:
        settings: of the run, which name it.
        empty_MD: the base's English states of the empty prompt.

    Raises:
        ValueError: its text encoder is not the one whose states the base reads.
    """
    clip = load_clip(settings.clip, settings.clip_revision)
    tokens = tokenize(clip.tokenizer, [""], clip.max_length, "max_length")
    with torch.no_grad():
        own = clip.model.text_model(tokens.input_ids).last_hidden_state[0]
    expected = empty_MD.cpu().float()
    if own.shape != expected.shape or not torch.allclose(own, expected, rtol=0.01, atol=0.01):
        raise ValueError(
            f"{settings.pretrained_model_name_or_path} does not read the last states of "
            f"{settings.clip}, so that CLIP's space cannot compare them: name the CLIP that the "
            "base was built on by --clip, or take --objective unet_attention"
        )
    return clip


def clip_space(clip: FrozenCLIP, device: torch.device) -> ClipSpace:
    """The parts of a CLIP that a step needs; the towers can be freed."""
    return ClipSpace(clip.model.text_projection.to(device), clip.model.logit_scale.exp().item())


@torch.no_grad()
def picture_patches(clip: FrozenCLIP, images: Tensor) -> Tensor:
    """Patch states of the last layer in the joint space (B, N, P), without the class state, as CLIP
    treats that one: layer norm, then projection. Pictures (B, 3, H, H) in [-1, 1] are resized to
    CLIP's.
    """
    size = (clip.image_size, clip.image_size)
    if images.shape[-2:] != size:
        images = F.interpolate(images, size=size, mode="bicubic", antialias=True)
    tower = clip.model.vision_model
    states = tower(pixel_values=clip.preprocess(images)).last_hidden_state[:, 1:]
    return clip.model.visual_projection(tower.post_layernorm(states))
