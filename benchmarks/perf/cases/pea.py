"""PEA's training step against the bare floor, and against the published form.

- train: `pea train` from features.
- floor: teacher's forward, student's forward, gradient to the text states; nothing else.
- published: what the published script does on the same shapes: two UNets, VAE and both text
  encoders online, the empty prompt encoded for every row, weight gradients of the student's UNet.

Training should hold one UNet and not two: compare the memory above the imports.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from cases import Arm, Case, Ratio, Setup, Step, random_batch
from crosslingual.data.loader import ShardLoader
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Writes shards and features."""
    shards, features = setup.write_shards(["en", "de"]), setup.folder / "features"
    setup.run("pea features", shards=shards, features_dir=features, languages=["de"])
    train = setup.train("pea train", features, languages=["de"], hidden_width=384)
    return {"train": train, "floor": floor, "published": published}


def floor(setup: Setup) -> Step:
    """Teacher's forward, student's forward, gradient to the student's states."""
    batch = random_batch(setup)

    def step() -> None:
        with torch.no_grad():
            batch.predict()
        predicted = batch.predict()
        torch.autograd.grad(predicted, batch.states, torch.ones_like(predicted))

    return step


def published(setup: Setup) -> Step:
    """The published script's step, with an adapter of the same size and loss."""
    base = Base.open(setup.base)
    english, vae = base.load_text(torch.device("cpu")), base.load_vae(torch.device("cpu"))
    multilingual = load_multilingual_encoder(setup.text_encoder)
    teacher, student = (random_batch(setup).unet for _ in range(2))
    student.requires_grad_(True)
    adapter = nn.Sequential(nn.LazyLinear(384), nn.GELU(), nn.LazyLinear(base.text.width))
    noising = base.schedule(device=torch.device("cpu"))
    shards = ShardLoader(
        str(setup.folder / "shards"), batch_size=setup.batch_size, seed=0, resolution=64
    )
    batches, optimizer = shards.batches(), None

    def step() -> None:
        nonlocal optimizer
        batch = next(batches)
        dropped = (torch.rand(setup.batch_size) < 0.1).view(-1, 1, 1)
        with torch.no_grad():
            clean = _encode(vae, batch["images"]) * base.latents.scale
            german = multilingual.encode([c["de"][0] for c in batch["captions"]])[0]
            empty_german = multilingual.encode([""] * setup.batch_size)[0]
            original = english.encode([c["en"][0] for c in batch["captions"]]).states
            empty = english.encode([""] * setup.batch_size).states
        noise, timesteps = torch.randn_like(clean), torch.randint(1000, (setup.batch_size,))
        kept = noising.process.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        text = torch.where(dropped, adapter(empty_german), adapter(german))
        optimizer = optimizer or torch.optim.AdamW(adapter.parameters(), lr=1e-4)
        found = _with_blocks(student, noisy, timesteps, text)
        with torch.no_grad():
            wanted = _with_blocks(teacher, noisy, timesteps, torch.where(dropped, empty, original))
        loss = sum(F.mse_loss(mine, its) for mine, its in zip(found, wanted, strict=True))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    return vae.encode(images).latent_dist.sample()


def _with_blocks(unet: Any, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The prediction, and the hidden states of every block."""
    found: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(
            lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
    ]
    predicted = unet(*inputs).sample
    for hook in hooks:
        hook.remove()
    return [predicted, *found]


CASE = Case(
    prepare,
    [
        Ratio("samples/s, train / published", "published", "train", ">= 2"),
        Ratio("time, train / floor", "train", "floor", "<= 1.25"),
    ],
)
