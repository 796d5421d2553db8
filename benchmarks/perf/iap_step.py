"""IAP's training step: the local branch against the full one, in one run.

    pip install -e methods/iap
    python benchmarks/perf/iap_step.py
    python benchmarks/perf/iap_step.py --num_rounds 5 --batch_size 8      # a quick look

All arms run in one process, on one thread, taking turns round by round on the testbed's shapes; a
ratio is the median of the rounds' ratios, by CPU time as well as by the clock. Every arm does what
`iap train` does: features from disk, DeepSpeed, metrics, asking whether to stop. A sample is a
picture with one target caption.

- full: the English caption and the target caption through the whole UNet, gradient through it.
- local: the English pass at every step; of the target's, keys, values and attention alone.
- kept: local, with the English pass's queries read from the features (`english_draws: 1`).
- text: text-space MSE, without a UNet: the cost of the encoder itself.

Target: kept at least 3x the samples/s of full. What `kept` saves was spent once, in `iap features`:
the cost of a picture's English pass is printed beside it.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from arms.iap_training import ARMS, english_pass, make_step, prepare, run_settings
from arms.measuring import timed

from crosslingual.training.processes import start_processes
from iap.config import TrainSettings

Times = list[tuple[float, float]]  # wall and CPU seconds, round by round


def print_ratio(name: str, over: Times, under: Times, target: str) -> None:
    """Prints the median of the rounds' ratios, by the clock and by CPU time."""
    wall, cpu = (
        statistics.median(a[i] / b[i] for a, b in zip(over, under, strict=True)) for i in (0, 1)
    )
    print(f"{name:32} {wall:6.2f}  by CPU time {cpu:6.2f}  {target}", flush=True)


def compare_steps(settings: TrainSettings, num_rounds: int) -> None:
    """Times the arms in turns and prints their samples/s and ratios."""
    steps = {name: make_step(settings, name) for name in ARMS}
    steps["English pass"] = english_pass(settings)
    times: dict[str, Times] = {name: [] for name in steps}
    names = list(steps)
    for number in range(num_rounds + 2):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            measured = timed(steps[name])
            if number > 1:  # the first rounds fill caches
                times[name].append(measured)
    for name in names:
        wall, cpu = (statistics.median(t[i] for t in times[name]) for i in (0, 1))
        rate = settings.train_batch_size / cpu
        print(f"{name:14} {wall * 1e3:8.1f} ms  {cpu * 1e3:8.1f} ms of CPU  {rate:7.1f} samples/s")
    print_ratio("samples/s, kept / full", times["full"], times["kept"], "(target >= 3)")
    print_ratio("samples/s, local / full", times["full"], times["local"], "")
    print_ratio("time, kept / text", times["kept"], times["text"], "")


def main() -> None:
    """Compares the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rounds", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start_processes()
    with tempfile.TemporaryDirectory() as folder:
        settings = run_settings(Path(folder), options.batch_size)
        prepare(settings)
        compare_steps(settings, options.num_rounds)


if __name__ == "__main__":
    main()
