"""The estimate of memory: against a measured step, against what the rules say, and the page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from altdiffusion.activations import kept_bytes
from altdiffusion.config import MemorySettings, TrainSettings
from altdiffusion.memory import Estimate, estimate_unet, memory, read_estimate, render

FOLDER = Path(__file__).parents[1]
ROWS = 96

STEP = """
import gc, json, re, sys
from pathlib import Path
import torch
import altdiffusion.train
from altdiffusion.config import TrainSettings
from altdiffusion.unet import set_trainable
from crosslingual.frozen.base import load_unet

def resident(kind):
    line = re.search(rf"{kind}:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) * 1024

def build(settings):
    unet = set_trainable(load_unet("testbed:sd"), settings).train()
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet

def peak(settings, rows):
    unet = build(settings)
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad])
    for _ in range(2):
        latents, times = torch.randn(rows, 4, 8, 8), torch.randint(1000, (rows,))
        unet(latents, times, torch.randn(rows, 32, 128)).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return resident("VmHWM")

torch.set_num_threads(1)
runs, rows = [TrainSettings(**given) for given in json.loads(sys.argv[1])], int(sys.argv[2])
unet = build(runs[-1])  # what a first step imports and allocates for good
unet(torch.randn(1, 4, 8, 8), 3, torch.randn(1, 32, 128)).sample.sum().backward()
del unet
gc.collect()
before = resident("VmRSS")
print(*(peak(settings, rows) - before for settings in runs))  # the smaller peak first
"""


def test_the_estimate_is_what_a_small_step_takes() -> None:
    """The testbed's whole UNet at batch 96, with gradient checkpointing and without, as resident
    memory of a process of its own; within 20 %, which allocator and kernels' workspaces take.
    """
    runs = [
        {"stage": "quality_improvement", "gradient_checkpointing": checkpointing}
        for checkpointing in (True, False)
    ]
    command = [sys.executable, "-c", STEP, json.dumps(runs), str(ROWS)]
    # large blocks go back to the system at once, so that what is resident is what is in use
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = [int(number) for number in done.stdout.split()[-2:]]
    found = [
        estimate_unet(TrainSettings(**given, train_batch_size=ROWS, max_length=32)).total(0, 1)
        for given in runs
    ]
    assert found == pytest.approx(measured, rel=0.2)
    assert measured[1] > 1.5 * measured[0]


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
    found = Estimate(trainable=100, frozen=50, activations=7, is_bf16=True, has_ema=True)
    copies = 100 * (2 + 4)
    assert found.total(0, 4) == 150 * 4 + 400 + 800 + copies + 7
    assert found.total(1, 4) == 150 * 4 + 400 + 200 + 100 + copies + 7
    assert found.total(2, 4) == 150 * 4 + 100 + 200 + 100 + copies + 7
    assert found.total(3, 4) == 150 + 100 + 200 + 100 + 200 + 7, "no EMA at ZeRO 3"


def test_the_page_says_what_the_command_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of its tables, computed again."""
    monkeypatch.chdir(FOLDER)
    page = Path("MEMORY.md").read_text(encoding="utf-8")
    for name in ("m9_sd15_concept_alignment", "m18_sd21_text"):
        assert render(f"configs/{name}.yaml", [1, 8, 64]) in page


def test_published_sizes_are_what_the_configs_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    for name, count in (("m9_sd15", 19_169_280), ("m18_sd21", 25_559_040)):
        found = read_estimate(f"configs/{name}_concept_alignment.yaml")[1]
        assert found.trainable == count


def test_a_missing_config_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no config file nowhere.yaml"):
        memory(MemorySettings(["nowhere.yaml"]))
    with pytest.raises(ValueError, match="configs is empty"):
        memory(MemorySettings([]))
