"""What a person sees while training, and its records: metrics.jsonl, and a tracker by name."""

import json
import math
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from tqdm import tqdm

from crosslingual.data.text import dump_json
from crosslingual.files import write_text
from crosslingual.training.trackers import open_tracker


class Progress:
    """Shows and records a run's steps, on rank 0 only; elsewhere every call does nothing.

    `metrics.jsonl` in the output folder always grows by a line a step; rows of steps after
    `start_step`, left by the run that is resumed, are dropped first. On a terminal there is a bar,
    elsewhere a line every `every_s` seconds.
    """

    def __init__(
        self,
        total_steps: int,
        output_dir: str | Path,
        *,
        start_step: int = 0,
        report_to: str = "none",
        rank: int = 0,
        description: str = "",
        every_s: float = 10.0,
    ) -> None:
        """Opens the records of a run that starts at `start_step` of `total_steps` in all."""
        self._is_on = rank == 0
        if not self._is_on:
            return
        self._total, self._every_s, self._description = total_steps, every_s, description
        self._start = self._last_line = time.perf_counter()
        self._start_step, self._num_samples = start_step, 0
        self._folder = Path(output_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "metrics.jsonl"
        _drop_rows_after(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        self._tracker = open_tracker(report_to, self._folder)
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            desc=description or None,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def step(
        self,
        step: int,
        loss: float,
        parts: Mapping[str, float],
        learning_rate: float,
        num_samples: int,
    ) -> None:
        """Records an optimiser step, the first being 1, over `num_samples` of the global batch."""
        if not self._is_on:
            return
        now = time.perf_counter()
        self._num_samples += num_samples
        elapsed_s = max(now - self._start, 1e-9)
        samples_per_s = self._num_samples / elapsed_s
        row = {"loss": float(loss), **{name: float(value) for name, value in parts.items()}}
        row |= {"learning_rate": learning_rate, "samples_per_s": round(samples_per_s, 3)}
        self.log(row, step)
        shown = {
            "loss": f"{loss:.4g}",
            "lr": f"{learning_rate:.2e}",
            "samples/s": f"{samples_per_s:.1f}",
            "peak": f"{peak_memory_bytes() / 2**30:.1f}GB",
        }
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix(shown, refresh=False)
        if self._bar.disable and (now - self._last_line >= self._every_s or step == self._total):
            self._last_line = now
            left_s = elapsed_s / (step - self._start_step) * (self._total - step)
            words = [f"{self._description} step {step}/{self._total}".strip()]
            words += [f"{name} {value}" for name, value in shown.items()]
            print(", ".join([*words, f"ETA {tqdm.format_interval(left_s)}"]), file=sys.stderr)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Records JSON values of a step, such as a validation's; the tracker gets the numbers."""
        if not self._is_on:
            return
        row = {"step": step, "time_s": round(time.perf_counter() - self._start, 3), **values}
        self._file.write(dump_json({name: _finite(value) for name, value in row.items()}) + "\n")
        self._file.flush()
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        self._tracker.numbers(numbers, step)

    def pictures(self, name: str, picture: Image, step: int) -> None:
        """Saves a picture as `pictures/NAME-STEP.png` and shows it to the tracker."""
        if not self._is_on:
            return
        folder = self._folder / "pictures"
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{name}-{step:06d}.png")
        self._tracker.picture(name, picture, step)

    def close(self) -> None:
        """Ends the bar, the file and the tracker."""
        if not self._is_on:
            return
        self._bar.close()
        self._file.close()
        self._tracker.close()


def peak_memory_bytes() -> int:
    """Returns the most memory this process has held: on its GPU, or else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _finite(value: Any) -> Any:
    """A value, or None for a NaN or an infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_rows_after(path: Path, step: int) -> None:
    """Keeps the rows up to a step; a last line that a killed process left half-written goes too."""
    if not path.is_file():
        return
    kept = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise ValueError(f"{path} line {number} is no row of a run; move the file away")
        if row["step"] <= step:
            kept.append(line.decode() + "\n")
    write_text(path, "".join(kept))
