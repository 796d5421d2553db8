"""Features of pictures for FID and KID: a CLIP's image embeddings, or FID's own Inception.

The resize alone changes FID by several points (Parmar et al. 2022, arXiv 2104.11222), and the
extractor by more. Both are in the protocol that `image_features` returns; numbers of different
protocols do not belong in one table.

- A CLIP (`testbed:clip`, a hub id, a folder) reads pictures at its own size (bicubic, centre crop).
  Layer `projected`: its embedding in the joint space, not normalised, as clean-fid and
  torch-fidelity take CLIP's features.
- `inception-v3-compat`, torch-fidelity's Inception, layer `2048`, as in published FIDs. Pictures
  are brought to a resolution or left as they are; the network then resizes them to 299 x 299,
  bilinear as in TensorFlow 1.

CLIP's features follow the content of pictures more than Inception's, which follow ImageNet's
classes (Kynkäänniemi et al. 2023, arXiv 2203.06026). Published numbers are Inception's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosslingual.data.pictures import pixels_to_images
from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual_benchmarks.metrics.pictures import (
    FIT,
    Pictures,
    list_pictures,
    picture_batches,
    square_size,
)

# N pictures, B of a batch, D width of the features

INCEPTION = "inception-v3-compat"  # torch-fidelity's name, and that of its FIDs


@dataclass(frozen=True)
class Extractor:
    """A frozen network that reads pictures.

    `layer` names whose output the features are. A resolution of None leaves pictures as they are.
    `embed` takes pictures (B, H, W, 3) as bytes to features (B, D).
    """

    name: str
    layer: str
    resolution: int | None
    embed: Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class ImageFeatures:
    """Features, and how they were taken.

    Rows are fp32, on the CPU; the protocol holds extractor, layer and resize as JSON values.
    """

    rows_ND: Tensor
    protocol: dict[str, Any]


def load_extractor(name: str, resolution: int | None = None) -> Extractor:
    """Loads a network that reads pictures.

    Args:
        name: `inception-v3-compat`, or a CLIP: `testbed:clip`, a hub id, a folder.
        resolution: for Inception, the square that pictures are brought to before its own resize.

    Raises:
        FileNotFoundError: there is no such CLIP.
        ValueError: a resolution is given to a CLIP, or torch-fidelity is not installed.
    """
    if name == INCEPTION:
        return _inception_extractor(resolution)
    if resolution is not None:
        raise ValueError(f"{name} reads pictures at its own size: leave the resolution out")
    return clip_extractor(load_clip(name))


def clip_extractor(clip: FrozenCLIP) -> Extractor:
    """The vision half of a loaded CLIP."""
    return Extractor(
        clip.name,
        "projected",
        clip.image_size,
        lambda pixels: clip.encode_images(pixels_to_images(pixels)),
    )


def _inception_extractor(resolution: int | None) -> Extractor:
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{INCEPTION} needs the package {error.name}: pip install torch-fidelity; or take a "
            "CLIP's features, such as testbed:clip"
        ) from error
    # its weights, 91 MB, are fetched by torch-fidelity once, into torch's hub folder
    network = FeatureExtractorInceptionV3(INCEPTION, ["2048"])
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(network.parameters()).device

    def embed(pixels: np.ndarray) -> Tensor:
        return network(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))[0]

    return Extractor(INCEPTION, "2048", resolution, embed)


@torch.no_grad()
def image_features(pictures: Pictures, extractor: Extractor, batch_size: int = 64) -> ImageFeatures:
    """Features (N, D) of a folder's pictures, or of Pillow's pictures and paths, by the batch.

    Raises:
        FileNotFoundError: pictures are missing.
        ValueError: fewer than 2, a broken one, several sizes where they are read as they are, or
            features that are not finite.
    """
    found = list_pictures(pictures)
    if len(found) < 2:
        raise ValueError(f"{len(found)} pictures: distances between sets need 2 and many more")
    size = extractor.resolution or square_size(found)
    batches = picture_batches(found, size, batch_size)
    rows_ND = torch.cat([extractor.embed(batch).float().cpu() for batch in batches])
    wrong = ~rows_ND.isfinite().all(dim=1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"the features of picture {first} are not finite ({int(wrong.sum())} of {len(found)} "
            f"are not): look for a NaN in {extractor.name}"
        )
    resize = f"none, {size}" if extractor.resolution is None else f"{FIT} to {size}"
    if extractor.name == INCEPTION:
        resize += ", then TensorFlow 1 bilinear to 299"
    protocol = {"extractor": extractor.name, "layer": extractor.layer, "resize": resize}
    return ImageFeatures(rows_ND, protocol)
