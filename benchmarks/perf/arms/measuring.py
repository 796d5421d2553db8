"""What a call costs, and how much memory this process has held."""

import re
import time
from collections.abc import Callable
from pathlib import Path


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_memory() -> float:
    """The most that was resident so far, in MiB (Linux); `ru_maxrss` counts the parent's too."""
    line = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) / 1024
