"""What PEA costs in use: its share of a 20-step generation, and the seconds of `pea --help`.

    pip install -e methods/pea
    python benchmarks/perf/pea_use.py

One thread, the testbed's shapes, an adapter as `pea train` starts it. Targets: at most 3 % of a
20-step generation, by CPU time, within the very call; `pea --help` within a second.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

from crosslingual.frozen.base import load_pipeline
from pea.config import TrainSettings
from pea.generate import attach_module
from pea.info import adapter_config
from pea.method import build_adapter


def compare_generation(num_rounds: int) -> None:
    """Prints the adapter's share of a 20-step generation."""
    settings = TrainSettings(languages=["de"])
    config = adapter_config(settings)
    adapter = build_adapter(config)
    pipe = load_pipeline(settings.pretrained_model_name_or_path)
    attach_module(pipe, adapter, config)
    spent: list[float] = []
    started = [0.0]
    adapter.register_forward_pre_hook(lambda *_: started.__setitem__(0, time.process_time()))
    adapter.register_forward_hook(lambda *_: spent.append(time.process_time() - started[0]))
    shares = []
    for _ in range(num_rounds + 1):
        spent.clear()
        before = time.process_time()
        pipe("ein roter Stern", num_inference_steps=20, guidance_scale=3.0)
        shares.append(sum(spent) / (time.process_time() - before))
    share = statistics.median(shares[1:])
    print(f"{'the adapter, share of a 20-step generation':44} {share:6.2%}  (target <= 3 %)")


def compare_start(num_rounds: int) -> None:
    """Prints how long `pea --help` takes."""
    command = [sys.executable, "-m", "pea.cli", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    walls = []
    for _ in range(num_rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / num_rounds
    wall = statistics.median(walls)
    print(f"{'pea --help':44} {wall:6.2f} s, {cpu:.2f} s of CPU  (target <= 1 s)")


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare_generation(options.num_rounds)
    compare_start(options.num_rounds)


if __name__ == "__main__":
    main()
