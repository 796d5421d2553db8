"""MuLan's training step against the bare floor and a plain loop, in one run.

    pip install -e methods/mulan
    python benchmarks/perf/mulan_step.py
    python benchmarks/perf/mulan_step.py --num_rounds 5 --batch_size 8      # a quick look

All arms run in one process, on one thread, taking turns round by round on the testbed's shapes; a
ratio is the median of the rounds' ratios, by CPU time as well as by the clock.

- floor: one forward of the UNet, gradient to the text states; nothing else.
- plain: MuLan's step (`Alignment.loss`) in a plain loop: fixed batch, AdamW, clipping.
- train: what `mulan train` does: features from disk, DeepSpeed, metrics, asking whether to stop.

Target: train at most 1.25x floor's time with image alignment. The file is not called mulan.py:
Python would import it instead of the package.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from arms.measuring import timed
from arms.mulan_training import ARMS, prepare, run_settings

from crosslingual.training.processes import start_processes
from mulan.config import TrainSettings

Times = list[tuple[float, float]]  # wall and CPU seconds, round by round


def print_ratio(name: str, over: Times, under: Times, target: str) -> None:
    """Prints the median of the rounds' ratios, by the clock and by CPU time."""
    wall, cpu = (
        statistics.median(a[i] / b[i] for a, b in zip(over, under, strict=True)) for i in (0, 1)
    )
    print(f"{name:44} {wall:6.2f}  by CPU time {cpu:6.2f}  {target}", flush=True)


def compare_steps(settings: TrainSettings, num_rounds: int) -> None:
    """Times the arms in turns and prints their ratios."""
    steps = {name: ARMS[name](settings) for name in ARMS}
    times: dict[str, Times] = {name: [] for name in ARMS}
    for number in range(num_rounds + 2):
        first = number % len(ARMS)
        for name in [*ARMS][first:] + [*ARMS][:first]:
            measured = timed(steps[name])
            if number > 1:  # the first rounds fill caches
                times[name].append(measured)
    for name in ARMS:
        wall, cpu = (statistics.median(t[i] for t in times[name]) for i in (0, 1))
        rate = settings.train_batch_size / cpu
        print(f"{name:10} {wall * 1e3:8.1f} ms  {cpu * 1e3:8.1f} ms of CPU  {rate:7.1f} samples/s")
    target = "(target <= 1.25)" if settings.alignment == "image" else ""
    print_ratio("time, train / floor", times["train"], times["floor"], target)
    print_ratio("time, plain / floor", times["plain"], times["floor"], "")
    print_ratio("time, train / plain (DeepSpeed and loop)", times["train"], times["plain"], "")


def main() -> None:
    """Compares the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rounds", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--alignment", choices=["image", "both"], default="image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start_processes()
    with tempfile.TemporaryDirectory() as folder:
        settings = run_settings(Path(folder), options.batch_size, options.alignment)
        prepare(settings)
        compare_steps(settings, options.num_rounds)


if __name__ == "__main__":
    main()
