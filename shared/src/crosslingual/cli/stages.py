"""A method's demo: its verbs one after another, each in processes of its own, as the command line
runs them.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Stages:
    """Runs a method's verbs and says what runs when.

    Attributes:
        prog: the method's package, such as `pea`.
        num_processes: that share a verb.
        started: when the clock was started (`time.monotonic`).
    """

    def __init__(self, prog: str, num_processes: int | None = None):
        """Starts the clock; without a number there are as many processes as cores, at most 2."""
        self.prog = prog
        self.num_processes = num_processes or min(2, os.cpu_count() or 1)
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def run(self, module: str, **settings: Any) -> float:
        """Runs `python -m PROG.MODULE` and returns its seconds.

        Args:
            module: of the verb, such as `train`.
            settings: of the verb; a value that is a list is many words.

        Raises:
            ValueError: the verb failed; its own message stands above.
        """
        started, launcher = time.monotonic(), [sys.executable, "-m"]
        if self.num_processes > 1:
            launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node"]
            launcher += [str(self.num_processes), "-m"]
        words = []
        for name, value in settings.items():
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        name = f"{self.prog}.{module}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*launcher, name, *words], env=environment, check=False)
        if done.returncode != 0:
            raise ValueError(f"{name} ended with code {done.returncode}; its message stands above")
        return time.monotonic() - started


def make_demo_folder(output_dir: str | Path) -> Path:
    """Makes a demo's folder anew; refuses one that holds something else.

    Raises:
        ValueError: the folder is not empty and no demo's.
    """
    folder = Path(output_dir)
    if folder.exists():
        if not (folder / "demo.json").exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and no demo's: choose another --output_dir")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "demo.json").write_text("{}")
    return folder
