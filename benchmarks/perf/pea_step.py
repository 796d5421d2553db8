"""PEA's training step against the published form, the bare floor and a plain loop, in one run.

    pip install -e methods/pea
    python benchmarks/perf/pea_step.py
    python benchmarks/perf/pea_step.py --num_rounds 5 --batch_size 8      # a quick look

All arms run in one process, on one thread, taking turns round by round on the testbed's shapes; a
ratio is the median of the rounds' ratios, by CPU time as well as by the clock.

- floor: teacher's forward, student's forward, gradient to the text states; nothing else.
- plain: PEA's step (`Distillation.loss`) in a plain loop: fixed batch, AdamW, clipping.
- train: what `pea train` does: features from disk, DeepSpeed, metrics, asking whether to stop.
- reference: what the published script does: two UNets, VAE and both text encoders online, the
  empty prompt encoded for every row, weight gradients of the student's UNet left on.

Targets: train at least 2x the samples/s of reference; train at most 1.25x floor's time and 1.10x
plain's; weights, gradients and peak memory of one UNet and not two (each arm in a process of its
own). The file is not called pea.py: Python would import it instead of the package.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from arms.measuring import peak_memory, timed
from arms.pea_training import ARMS, prepare, run_settings

from crosslingual.training.processes import start_processes
from pea.config import TrainSettings

MIB = 2**20
Times = list[tuple[float, float]]  # wall and CPU seconds, round by round


def print_ratio(name: str, over: Times, under: Times, target: str) -> None:
    """Prints the median of the rounds' ratios, by the clock and by CPU time."""
    wall, cpu = (
        statistics.median(a[i] / b[i] for a, b in zip(over, under, strict=True)) for i in (0, 1)
    )
    print(f"{name:44} {wall:6.2f}  by CPU time {cpu:6.2f}  (target {target})", flush=True)


def compare_steps(settings: TrainSettings, num_rounds: int) -> None:
    """Times the arms in turns and prints their ratios."""
    steps = {name: ARMS[name](settings)[0] for name in ARMS}
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
    print_ratio("samples/s, train / reference", times["reference"], times["train"], ">= 2")
    print_ratio("time, train / floor", times["train"], times["floor"], "<= 1.25")
    print_ratio(
        "time, train / plain (DeepSpeed and loop)", times["train"], times["plain"], "<= 1.10"
    )


def report_memory(name: str, settings: TrainSettings) -> None:
    """Prints what an arm holds and its peak above the imports; for a process of its own."""
    import deepspeed  # noqa: F401, counted among the imports

    before = peak_memory()
    step, modules = ARMS[name](settings)
    for _ in range(2):
        step()
    held = {id(p): p for module in modules for p in module.parameters()}.values()
    weights = sum(p.numel() * p.element_size() for p in held) / MIB
    gradients = sum(p.grad.numel() * 4 for p in held if p.grad is not None) / MIB
    print(
        f"{name:10} weights {weights:6.1f} MiB, gradients left {gradients:6.1f} MiB, "
        f"peak {peak_memory() - before:7.1f} MiB above the imports",
        flush=True,
    )


def main() -> None:
    """Compares the steps, or measures one arm's memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rounds", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--memory", choices=ARMS, help="only this arm's memory")
    parser.add_argument("--folder", type=Path, help="of the prepared data, for --memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start_processes()
    if options.memory:
        report_memory(options.memory, run_settings(options.folder, options.batch_size))
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = run_settings(Path(folder), options.batch_size)
        prepare(settings)
        compare_steps(settings, options.num_rounds)
        for name in ("train", "reference"):
            words = ["--memory", name, "--folder", folder, "--batch_size", str(options.batch_size)]
            subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
