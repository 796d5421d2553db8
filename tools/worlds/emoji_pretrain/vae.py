"""The VAE of `emoji:sd`: f = 8, twelve latent channels, trained on three sets without culture.

Loss: L1 + MSE + L1 between the pixels' differences to their neighbours (edges), plus KL.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from crosslingual.worlds import model_folder
from crosslingual_worlds.emoji.names import all_emoji, taught_emoji
from crosslingual_worlds.emoji.pictures import load_pictures
from loop import Recipe, train

BATCH = 16
KL_WEIGHT = 1e-3  # on the mean over latent values
SHIPPED_SETS = ("noto", "fluent", "twemoji")  # OpenMoji is share-alike: no weight learns from it


def make_vae() -> AutoencoderKL:
    """The VAE's shape: 1.0 M parameters, 0.6 GFLOP a picture forward."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=12,
        norm_num_groups=8,
        layers_per_block=1,
        sample_size=64,
    )


@torch.no_grad()
def start_from_drawn(vae: AutoencoderKL) -> None:
    """Copies the drawn world's VAE, its four latent channels into the first four of twelve."""
    drawn = AutoencoderKL.from_pretrained(model_folder("testbed:sd"), subfolder="vae").state_dict()
    for name, mine in vae.state_dict().items():
        rows, columns = (torch.arange(n) for n in (drawn[name].shape + (1,))[:2])
        if mine.shape[0] == 24:  # means, then log variances
            rows = torch.cat([rows[:4], rows[:4] + 12])
            if mine.ndim == 1:
                mine[12:] = -3.0  # the new channels start with little noise
        if name == "quant_conv.weight":
            columns = rows
        if mine.ndim == 1:
            mine[rows] = drawn[name]
        else:
            mine[rows[:, None], columns[None]] = drawn[name]


def to_unit(pictures: list[np.ndarray]) -> Tensor:
    """Pictures (H, W, 3) of uint8 as (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def loss_of(vae: AutoencoderKL, pictures_BCHW: Tensor, generator: torch.Generator):
    """The VAE's loss on pictures in [-1, 1]; returns (loss, parts)."""
    posterior = vae.encode(pictures_BCHW).latent_dist
    decoded_BCHW = vae.decode(posterior.sample(generator)).sample
    error_BCHW = decoded_BCHW - pictures_BCHW
    edges = error_BCHW.diff(dim=2).abs().mean() + error_BCHW.diff(dim=3).abs().mean()
    l1, mse = error_BCHW.abs().mean(), error_BCHW.square().mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    parts = {"mse01": mse.detach() / 4, "l1": l1.detach(), "kl": kl.detach()}
    return l1 + mse + edges + KL_WEIGHT * kl, parts


def train_vae(work: Path, num_steps: int = 460) -> AutoencoderKL:
    """Trains it, or goes on; half of the pictures are mirrored, a fifth have colours exchanged."""
    held = {emoji.key for emoji in all_emoji() if emoji.culture}
    sets = [load_pictures(name) for name in SHIPPED_SETS]
    pictures = to_unit([p for one in sets for key, p in one.items() if key not in held])
    torch.manual_seed(0)
    vae = make_vae()
    start_from_drawn(vae)
    vae.to(memory_format=torch.channels_last)

    def loss_of_step(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        batch = pictures[torch.randint(len(pictures), (BATCH,), generator=generator)].clone()
        draws = torch.rand(BATCH, 2, generator=generator)
        for row in range(BATCH):
            if draws[row, 0] < 0.5:
                batch[row] = batch[row].flip(-1)
            if draws[row, 1] < 0.2:
                batch[row] = batch[row][torch.randperm(3, generator=generator)]
        return loss_of(vae, batch.contiguous(memory_format=torch.channels_last), generator)

    train(Recipe("vae", num_steps, 1.5e-3), vae, loss_of_step, work)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL) -> tuple[Tensor, float]:
    """Latents (N, 12, 8, 8) of the taught Noto pictures at unit variance; the scaling factor."""
    noto = load_pictures("noto")
    pictures = to_unit([noto[emoji.key] for emoji in taught_emoji()])
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pictures.split(64)])
    factor = 1.0 / float(latents.std())
    return latents * factor, factor
