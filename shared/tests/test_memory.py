"""The estimate of a run's memory: against a measured step, and against what the rules say."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from crosslingual.frozen.base import Base
from crosslingual.frozen.memory import Estimate, adapter_info, estimate, kept_bytes
from crosslingual.training.settings import DiffusionSettings

ROWS = 96
CONFIG = {
    "encoder_width": 64,
    "width": 128,
    "max_length": 32,
    "text_encoder": "testbed:xlm-r",
    "text_encoder_revision": None,
}

STEP = """
import gc, re, sys
from pathlib import Path
import torch
from crosslingual.frozen.base import Base

def resident(kind):
    line = re.search(rf"{kind}:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) * 1024

def peak(is_checkpointed, rows):
    unet = Base.open("testbed:sd").load_model().requires_grad_(True).train()
    if is_checkpointed:
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(unet.parameters())
    for _ in range(2):
        latents, times = torch.randn(rows, 4, 8, 8), torch.randint(1000, (rows,))
        unet(latents, times, torch.randn(rows, 32, 128)).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return resident("VmHWM")

torch.set_num_threads(1)
unet = Base.open("testbed:sd").load_model()  # what a first step imports and allocates for good
unet.requires_grad_(True)
unet(torch.randn(1, 4, 8, 8), 3, torch.randn(1, 32, 128)).sample.sum().backward()
del unet
gc.collect()
before, rows = resident("VmRSS"), int(sys.argv[1])
print(*(peak(is_checkpointed, rows) - before for is_checkpointed in (True, False)))
"""


@dataclass
class Settings(DiffusionSettings):
    """Of a run through the denoiser."""

    resolution: int = 64
    gradient_checkpointing: bool = False


class Adapter(nn.Linear):
    """Gives states and no pooled vector."""

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, None]:
        return super().forward(states), None


def build(config: dict) -> nn.Module:
    return Adapter(config["encoder_width"], config["width"])


def estimate_unet(is_checkpointed: bool) -> Estimate:
    """Of a whole UNet that trains."""
    unet = Base.open("testbed:sd").denoiser_on_meta()

    def forward(dtype: torch.dtype) -> torch.Tensor:
        with torch.device("meta"):
            latents = torch.empty(ROWS, 4, 8, 8, dtype=dtype)
            times, states = torch.empty(ROWS, dtype=torch.int64), torch.empty(ROWS, 32, 128)
            return unet(latents, times, states.to(dtype)).sample

    checkpoint = unet.enable_gradient_checkpointing if is_checkpointed else None
    return estimate(unet, forward, Settings(), checkpoint=checkpoint)


def test_the_estimate_is_what_a_small_step_takes() -> None:
    """The testbed's whole UNet at batch 96, with gradient checkpointing and without, as resident
    memory of a process of its own; within 20 %, which allocator and kernels' workspaces take.
    """
    # large blocks go back to the system at once, so that what is resident is what is in use
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", STEP, str(ROWS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = [int(number) for number in done.stdout.split()[-2:]]
    found = [estimate_unet(is_checkpointed).total(0, 1) for is_checkpointed in (True, False)]
    assert found == pytest.approx(measured, rel=0.2)
    assert measured[1] > 1.5 * measured[0]


def test_the_tables_count_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(train_batch_size=4, mixed_precision="bf16")
    counts = adapter_info("a run", settings, CONFIG, build, base=Base.open("testbed:sd"))
    assert counts["trainable"] == 65 * 128 and counts["denoiser"] == 4_283_012
    assert counts["total"] == sum(n for name, n in counts.items() if name != "total")
    said = capsys.readouterr().out
    assert f"{'adapter (trains)':<40} {'8,320':>14} {'0.1':>10} MiB" in said
    assert "encoder testbed:xlm-r" in said and "bf16 autocast" in said
    assert "| GPUs | ZeRO 0 | ZeRO 1 | ZeRO 2 | ZeRO 3 |" in said


def test_kept_tensors_by_hand() -> None:
    """Linear keeps its input (and its weight, which is there anyway), ReLU its output, the last
    Linear that same output, which is counted once.
    """
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        rows = torch.empty(7, 3)
    kept, largest = kept_bytes(model, lambda: model(rows), (nn.ReLU,))
    assert kept == 4 * 7 * (3 + 5)
    assert largest == 4 * 7 * 5


def test_autocast_keeps_a_copy_of_each_frozen_weight_that_gradients_pass() -> None:
    """Of the second layer alone: nothing before it trains, so that the first keeps nothing."""
    with torch.device("meta"):
        frozen = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 5)).requires_grad_(False)
        trained, rows = nn.Linear(5, 5), torch.empty(7, 3)
    both = nn.ModuleList([frozen, trained])

    def forward() -> torch.Tensor:
        return frozen[1](trained(frozen[0](rows)))

    assert kept_bytes(both, forward)[0] == 4 * 7 * 5
    assert kept_bytes(both, forward, casts=True)[0] == 4 * 7 * 5 + 4 * 5 * 5


def test_attention_is_counted_as_fused_kernels_keep_it() -> None:
    """Queries, keys, values, output, and one number a query: no square of the length."""
    with torch.device("meta"):
        heads = torch.empty(2, 4, 100, 8, requires_grad=True)

    def attend() -> torch.Tensor:
        double = heads * 2
        return nn.functional.scaled_dot_product_attention(double, double * 2, double * 3)

    kept, _ = kept_bytes(nn.Identity(), attend)
    assert kept == 4 * (4 * heads.numel() + 2 * 4 * 100)


def test_shares_of_zero_by_hand() -> None:
    found = Estimate(trainable=100, frozen=50, activations=7, is_bf16=True, has_ema=True, held=10)
    copies, held = 100 * (2 + 4), 10 * 4
    assert found.total(0, 4) == 150 * 4 + 400 + 800 + copies + 7 + held
    assert found.total(1, 4) == 150 * 4 + 400 + 200 + 100 + copies + 7 + held
    assert found.total(2, 4) == 150 * 4 + 100 + 200 + 100 + copies + 7 + held
    assert found.total(3, 4) == 150 + 100 + 200 + 100 + 200 + 7 + held, "no EMA at ZeRO 3"
