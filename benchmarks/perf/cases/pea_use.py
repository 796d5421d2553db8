"""What PEA costs in use: its share of a 20-step generation, and the seconds of `pea --help`.

One thread, the testbed's shapes, an adapter that trained one step. Targets: at most 3 % of a
20-step generation, by CPU time, within the very call; `pea --help` within a second.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cases import Setup
from crosslingual_benchmarks.methods import find_method


def adapter_share(setup: Setup, num_rounds: int) -> float:
    """The adapter's share of a 20-step generation, the median of the rounds'."""
    settings = {"languages": ["de"], "max_train_steps": 1, "train_batch_size": 4}
    shards = setup.write_shards(["en", "de"])
    setup.run("pea train", train_data=shards, output_dir=setup.folder / "run", **settings)
    pipe = find_method("pea").load_pipeline(str(setup.folder / "run/adapter"), setup.base)
    spent, started, shares = [], [0.0], []
    adapter = pipe.text_encoder.adapter
    adapter.register_forward_pre_hook(lambda *_: started.__setitem__(0, time.process_time()))
    adapter.register_forward_hook(lambda *_: spent.append(time.process_time() - started[0]))
    for _ in range(num_rounds + 1):
        spent.clear()
        before = time.process_time()
        pipe("ein roter Stern", num_inference_steps=20, guidance_scale=3.0)
        shares.append(sum(spent) / (time.process_time() - before))
    return statistics.median(shares[1:])


def start_seconds(num_rounds: int) -> tuple[float, float]:
    """Wall and CPU seconds of `pea --help`."""
    before, walls = resource.getrusage(resource.RUSAGE_CHILDREN), []
    for _ in range(num_rounds):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pea", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        walls.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return statistics.median(walls), spent / num_rounds


def main(argv: Sequence[str]) -> None:
    """Prints both; takes the number of rounds, 9 if it is not given."""
    num_rounds = int(argv[0]) if argv else 9
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder), "testbed:sd", "testbed:xlm-r", 64, 4, 1)
        share = adapter_share(setup, num_rounds)
    print(f"{'the adapter, share of a 20-step generation':44} {share:6.2%}  (target <= 3 %)")
    wall, cpu = start_seconds(num_rounds)
    print(f"{'pea --help':44} {wall:6.2f} s, {cpu:.2f} s of CPU  (target <= 1 s)")
