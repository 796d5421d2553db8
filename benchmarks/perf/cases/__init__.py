"""Cases of `benchmarks/perf/run.py`: one short file each, found by itself.

A file that has `CASE` compares arms of training; one that has `main(argv)` measures something else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from crosslingual.data.shards import write_shards
from crosslingual.frozen.base import Base
from crosslingual.frozen.weights import resolve
from crosslingual.worlds import find_world
from crosslingual_benchmarks.compare.commands import Command, launch


@dataclass(frozen=True)
class Setup:
    """What the arms of a case share.

    A floor runs the base's UNet. The resolution is in pixels; an arm takes `num_steps` optimiser
    steps in a round.
    """

    folder: Path
    base: str
    text_encoder: str
    resolution: int
    batch_size: int
    num_steps: int

    def run(self, words: str, **settings: Any) -> None:
        """Runs a command such as `pea features` now; `words` follow `python -m`."""
        launch(self.command(words, **settings))

    def command(self, words: str, **settings: Any) -> Command:
        """A command with its settings, ready to run."""
        return Command(words, settings, self.folder / "logs" / words.replace(" ", "-"))

    def train(self, words: str, train_data: Path, **settings: Any) -> Command:
        """A training of `num_steps` steps."""
        common = {"train_data": train_data, "train_batch_size": self.batch_size}
        common |= {"max_train_steps": self.num_steps, "checkpointing_steps": self.num_steps}
        return self.command(words, **common, **settings)

    def write_shards(self, languages: Sequence[str], **options: Any) -> Path:
        """Shards of the drawn world, with four batches of samples."""
        source = find_world("testbed").sources["world"]
        options = {"num_samples": 4 * self.batch_size, **options}
        write_shards(source(languages=list(languages), **options), self.folder / "shards")
        return self.folder / "shards"


Step = Callable[[], object]
Arm = Command | Callable[[Setup], Step]


@dataclass(frozen=True)
class Ratio:
    """Seconds a step of one arm over those of another, and what it should be."""

    words: str
    over: str
    under: str
    target: str = ""


@dataclass(frozen=True)
class Case:
    """Arms that are compared.

    `prepare` writes the data that the arms read, and returns the arms by name.
    """

    prepare: Callable[[Setup], Mapping[str, Arm]]
    ratios: Sequence[Ratio]
    batch_size: int = 24
    num_steps: int = 30


def peak_mib() -> float:
    """The most memory that was resident so far, in MiB (Linux)."""
    line = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) / 1024


@dataclass(frozen=True)
class Batch:
    """A frozen UNet of diffusers and random inputs of its shape, for floors.

    Latents (B, C, h, w), timesteps (B,), and text states (B, L, D) that want a gradient.
    """

    unet: Any
    latents: Tensor
    timesteps: Tensor
    states: Tensor

    def predict(self) -> Tensor:
        """The UNet's prediction (B, C, h, w)."""
        return self.unet(self.latents, self.timesteps, self.states).sample


def random_batch(setup: Setup, num_states: int | None = None) -> Batch:
    """The base's UNet with a random batch of the setup's size; `num_states` text states a row, or
    as many as the base's own text encoder gives.
    """
    base = Base.open(setup.base)
    unet = UNet2DConditionModel.from_pretrained(resolve(setup.base), subfolder="unet")
    unet = unet.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    edge, size = setup.resolution // base.latents.downscale, setup.batch_size
    latents = torch.randn(size, base.latents.channels, edge, edge, generator=generator)
    timesteps = torch.randint(1000, (size,), generator=generator)
    length = num_states or base.text.length
    states = torch.randn(size, length, base.text.width, generator=generator)
    latents = latents.to(memory_format=torch.channels_last)  # as `Noising.draw` gives them
    return Batch(unet, latents, timesteps, states.requires_grad_())
