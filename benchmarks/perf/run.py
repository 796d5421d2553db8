"""Ratios of speed and memory, a case at a time.

    python benchmarks/perf/run.py                          # lists the cases
    python benchmarks/perf/run.py pea
    python benchmarks/perf/run.py pea --num_rounds 1 --num_steps 12 --batch_size 8   # a quick look

A case of training compares arms. An arm is a method's whole command, such as `pea train`, with
data, DeepSpeed and metrics; or a function such as a floor, written with diffusers alone. Each arm
runs on one thread in a process of its own. The arms take turns round by round, and a ratio is the
median of the rounds' ratios. The median of the seconds between steps is timed, without the start.
"""

import argparse
import importlib
import pkgutil
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cases
import torch
from cases import Arm, Case, Setup, Step, peak_mib

from crosslingual_benchmarks.compare.commands import Command, launch, step_time

PEAK = re.compile(r"peak ([0-9.]+)GB")  # in the log of a training


@dataclass
class Measured:
    """What an arm's rounds took."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


def measure(arm: Arm, setup: Setup) -> tuple[float, float]:
    """Seconds a step and the peak MiB of a process that runs an arm."""
    if isinstance(arm, Command):
        with tempfile.TemporaryDirectory(dir=setup.folder) as folder:
            place = Path(folder, "run")
            launch(replace(arm, settings={**arm.settings, "output_dir": place}, place=place))
            peaks = PEAK.findall(place.with_suffix(".log").read_text(encoding="utf-8"))
            return step_time(place / "metrics.jsonl").median_s, 1024 * float((peaks or [0])[-1])
    return _in_a_process(_time_steps, arm, setup)


def _in_a_process(function: Callable[..., Any], *args: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _imported_mib() -> float:
    """What a process holds that has imported the libraries of a training."""
    import deepspeed  # noqa: F401

    return peak_mib()


def _time_steps(make_step: Callable[[Setup], Step], setup: Setup) -> tuple[float, float]:
    _imported_mib()
    torch.set_num_threads(1)
    step, seconds = make_step(setup), []
    for _ in range(setup.num_steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]), peak_mib()


def compare(case: Case, setup: Setup, num_rounds: int) -> None:
    """Prints the seconds and memory of each arm, and the ratios."""
    arms = dict(case.prepare(setup))
    imported = _in_a_process(_imported_mib)
    found = {name: Measured() for name in arms}
    for number in range(num_rounds):
        names = list(arms)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds, peak = measure(arms[name], setup)
            found[name].seconds.append(seconds)
            found[name].peak_mib = max(found[name].peak_mib, peak)
    for name, measured in found.items():
        seconds = statistics.median(measured.seconds)
        print(
            f"{name:14} {1e3 * seconds:9.1f} ms a step {setup.batch_size / seconds:9.1f} samples/s "
            f"{measured.peak_mib - imported:8.0f} MiB above the imports",
            flush=True,
        )
    for ratio in case.ratios:
        over, under = (found[name].seconds for name in (ratio.over, ratio.under))
        value = statistics.median(a / b for a, b in zip(over, under, strict=True))
        target = f"  (target {ratio.target})" if ratio.target else ""
        print(f"{ratio.words:56} {value:6.2f}{target}", flush=True)


def find_cases() -> dict[str, Any]:
    """The modules of `cases` by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(cases.__path__))
    return {name: importlib.import_module(f"cases.{name}") for name in names}


def main(argv: Sequence[str]) -> int:
    """Lists the cases, or runs one."""
    found = find_cases()
    if not argv or argv[0] not in found:
        for name, module in found.items():
            print(f"python benchmarks/perf/run.py {name}\n    {module.__doc__.splitlines()[0]}")
        return 0 if not argv or argv[0] in ("-h", "--help") else 2
    module = found[argv[0]]
    if not hasattr(module, "CASE"):
        return module.main(argv[1:]) or 0
    case = module.CASE
    parser = argparse.ArgumentParser(
        prog=f"run.py {argv[0]}", description=module.__doc__.splitlines()[0]
    )
    parser.add_argument("--num_rounds", type=int, default=3)
    parser.add_argument("--num_steps", type=int, default=case.num_steps)
    parser.add_argument("--batch_size", type=int, default=case.batch_size)
    parser.add_argument("--base", default="testbed:sd")
    parser.add_argument("--text_encoder", default="testbed:xlm-r")
    parser.add_argument("--resolution", type=int, default=64)
    options = vars(parser.parse_args(argv[1:]))
    num_rounds = options.pop("num_rounds")
    with tempfile.TemporaryDirectory() as folder:
        compare(case, Setup(Path(folder), **options), num_rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
