"""Pictures to pretrain on: world scenes of the training split, and doodles that teach the VAE more
than the world.

The VAE of a real Stable Diffusion has seen far more than the UNet was told about. Here doodles
(random polygons, ellipses and strokes in random colours) play that part, so that motifs, which no
part ever sees, can be encoded.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from crosslingual_worlds.drawn.world import BACKGROUND, OVERSAMPLING, RESOLUTION, Scene, render


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """Pictures as uint8 (B, 3, H, W)."""
    return (
        torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1.0


def doodle(rng: np.random.Generator) -> Image.Image:
    """A random cluster of two to nine filled figures and strokes on white."""
    edge = RESOLUTION * OVERSAMPLING
    canvas = Image.new("RGB", (edge, edge), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    extent = rng.uniform(0.25, 0.8) * edge
    centre = edge / 2 + rng.uniform(-0.12, 0.12, 2) * edge
    palette = rng.integers(0, 256, (int(rng.integers(2, 5)), 3))
    for _ in range(int(rng.integers(2, 10))):
        color = tuple(int(c) for c in palette[rng.integers(len(palette))])
        x, y = centre + rng.uniform(-0.35, 0.35, 2) * extent
        a, b = rng.uniform(0.06, 0.35, 2) * extent
        kind = rng.integers(4)
        if kind == 0:
            draw.ellipse((x - a, y - b, x + a, y + b), fill=color)
        elif kind == 1:
            draw.rectangle((x - a, y - b, x + a, y + b), fill=color)
        elif kind == 2:
            corners = [
                (x + a * dx, y + a * dy)
                for dx, dy in rng.uniform(-1, 1, (int(rng.integers(3, 7)), 2))
            ]
            draw.polygon(corners, fill=color)
        else:
            width = int(rng.uniform(0.03, 0.1) * extent)
            draw.line((x - a, y - b, x + a * rng.choice([-1, 1]), y + b), fill=color, width=width)
    return canvas.resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)


def rendered_pool(scenes: list[Scene], seed: int) -> Tensor:
    """Renders every scene once: uint8 (N, 3, H, W)."""
    rng = np.random.default_rng(seed)
    pool = torch.empty(len(scenes), 3, RESOLUTION, RESOLUTION, dtype=torch.uint8)
    for index, scene in enumerate(scenes):
        pool[index] = to_tensor([render(scene, rng)])[0]
    return pool
