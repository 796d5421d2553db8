"""Pretrains the testbed's VAE: an AutoencoderKL with f = 8 and four latent channels.

    python tools/worlds/pretrain/vae.py --work WORK

Loss: L1 + 2 x MSE on the pixels, where the drawing and its surroundings weigh more than blank
    paper, plus 1e-6 x KL.
"""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from crosslingual_worlds.drawn.judge import shows
from crosslingual_worlds.drawn.world import Scene, motif_scenes, render, sample_scenes
from loop import Recipe, start, train
from pictures import doodle, rendered_pool, to_tensor, to_unit

BATCH = 24
DOODLES = 8  # of a batch
KL_WEIGHT = 1e-6


def make_vae() -> AutoencoderKL:
    """The VAE's shape: 0.98 M parameters."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
        layers_per_block=1,
        sample_size=64,
    )


def pixel_weights(pictures_BCHW: Tensor) -> Tensor:
    """1 on blank paper, 4 on and next to what is drawn, mean 1 a batch: (B, 1, H, W)."""
    drawn = (pictures_BCHW < 0.96).any(dim=1, keepdim=True).float()
    weights = 1.0 + 3.0 * F.max_pool2d(drawn, 5, stride=1, padding=2)
    return weights / weights.mean()


def loss_of(
    vae: AutoencoderKL, pictures_BCHW: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The VAE's loss on pictures in [-1, 1]."""
    posterior = vae.encode(pictures_BCHW).latent_dist
    difference = vae.decode(posterior.sample(generator)).sample - pictures_BCHW
    weights = pixel_weights(pictures_BCHW)
    l1, mse = (weights * difference.abs()).mean(), (weights * difference**2).mean()
    kl = posterior.kl().mean()
    parts = {"mse": (difference**2).mean().detach(), "kl": kl.detach()}
    return l1 + 2.0 * mse + KL_WEIGHT * kl, parts


@torch.no_grad()
def round_trip(
    vae: AutoencoderKL, scenes: list[Scene], rng: np.random.Generator
) -> tuple[float, float]:
    """The mean squared error of pictures that pass the VAE, and the share that the judge reads."""
    pictures = to_unit(to_tensor([render(scene, rng) for scene in scenes]))
    latents = [vae.encode(part).latent_dist.mode() for part in pictures.split(48)]
    back = torch.cat([vae.decode(part).sample for part in latents])
    images = VaeImageProcessor().postprocess(back, output_type="pil")
    is_read = [shows(image, scene) for image, scene in zip(images, scenes, strict=True)]
    return float((back - pictures).square().mean()), float(np.mean(is_read))


def report(vae: AutoencoderKL, step: int) -> None:
    """Prints what survives the round trip on held-out scenes and on motifs."""
    rng = np.random.default_rng(1)
    mse, read = round_trip(vae, sample_scenes("test", 200, seed=11), rng)
    _, seen = round_trip(vae, motif_scenes(), rng)
    print(
        f"vae at step {step}: held-out mse {mse:.5f}, scenes read {read:.3f}, motifs {seen:.3f}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    options, rank = start(__doc__, num_steps=1600)
    vae = make_vae().to(memory_format=torch.channels_last)
    pool = rendered_pool(sample_scenes("train", 20_000, seed=1, singles=0.3), seed=2)

    def loss_of_step(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng((3, step, rank))
        doodles = to_tensor([doodle(rng) for _ in range(DOODLES)])
        scenes = pool[torch.from_numpy(rng.integers(0, len(pool), BATCH - DOODLES))]
        batch = to_unit(torch.cat([scenes, doodles])).to(memory_format=torch.channels_last)
        return loss_of(vae, batch, generator)

    recipe = Recipe("vae", options.num_steps, 1.5e-3, ema_decay=0.995)
    train(
        recipe, vae, loss_of_step, options.work, look=lambda step: report(vae, step), look_every=500
    )


if __name__ == "__main__":
    main()
