"""Concept alignment's step against its floor and against online encoding, in one run.

    pip install -e methods/altdiffusion
    python benchmarks/perf/altdiffusion_step.py
    python benchmarks/perf/altdiffusion_step.py --num_rounds 5 --batch_size 8      # a quick look

    python tools/random_base.py write --shape sd15 --output_dir /tmp/sd15          # real shapes
    python benchmarks/perf/altdiffusion_step.py --base /tmp/sd15/base --encoder /tmp/sd15/encoder \
        --resolution 256 --batch_size 1 --num_rounds 3 --arms floor train online

All arms run in one process, on one thread, taking turns round by round on the testbed's shapes or
those of the folders given; a ratio is the median of the rounds' ratios, by CPU time as well as by
the clock.

- floor: the UNet's forward and backward pass with gradients for keys and values of cross-attention
  alone, on tensors that are there; nothing else.
- train: what `altdiffusion train --stage concept_alignment` does: features from disk, the draw of
  noise, timesteps and languages, DeepSpeed, metrics, asking whether to stop.
- online: the same from shards: pictures are decoded and pass the VAE, the captions that are drawn
  pass the text encoder.
- whole: the same as train, with gradients for the whole UNet, as quality improvement has them.

Targets: train at most 1.25x floor's time; train at least 1.5x the samples/s of online.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from arms.altdiffusion_training import ARMS, prepare, run_settings
from arms.measuring import timed

from altdiffusion.config import TrainSettings
from crosslingual.training.processes import start_processes

RATIOS = [
    ("time, train / floor", "train", "floor", "target <= 1.25"),
    ("samples/s, train / online", "online", "train", "target >= 1.5"),
    ("time, whole UNet / keys and values", "whole", "train", "no target"),
]

Times = list[tuple[float, float]]  # wall and CPU seconds, round by round


def print_ratio(name: str, over: Times, under: Times, target: str) -> None:
    """Prints the median of the rounds' ratios, by the clock and by CPU time."""
    wall, cpu = (
        statistics.median(a[i] / b[i] for a, b in zip(over, under, strict=True)) for i in (0, 1)
    )
    print(f"{name:44} {wall:6.2f}  by CPU time {cpu:6.2f}  ({target})", flush=True)


def compare_steps(settings: TrainSettings, num_rounds: int, arms: list[str]) -> None:
    """Times the arms in turns and prints their ratios."""
    steps = {name: ARMS[name](settings) for name in arms}
    times: dict[str, Times] = {name: [] for name in arms}
    for number in range(num_rounds + 2):
        first = number % len(arms)
        for name in arms[first:] + arms[:first]:
            measured = timed(steps[name])
            if number > 1:  # the first rounds fill caches
                times[name].append(measured)
    for name in arms:
        wall, cpu = (statistics.median(t[i] for t in times[name]) for i in (0, 1))
        rate = settings.train_batch_size / cpu
        print(f"{name:10} {wall * 1e3:8.1f} ms  {cpu * 1e3:8.1f} ms of CPU  {rate:7.1f} samples/s")
    for name, over, under, target in RATIOS:
        if {over, under} <= times.keys():
            print_ratio(name, times[over], times[under], target)


def main() -> None:
    """Compares the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rounds", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--base", default="testbed:sd")
    parser.add_argument("--encoder", default="testbed:xlm-r")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    start_processes()
    with tempfile.TemporaryDirectory() as folder:
        settings = run_settings(Path(folder), options.batch_size, options.base, options.resolution)
        prepare(settings, options.encoder)
        compare_steps(settings, options.num_rounds, options.arms)


if __name__ == "__main__":
    main()
