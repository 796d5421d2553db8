"""What several tests of shared use."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TinyRun = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny_run() -> Iterator[TinyRun]:
    """Runs `tiny_run.train` in forked processes: `tiny_run(output_dir=..., steps=6)`.

    The answer holds `codes`, `answers` and `stderr`, a value a rank.
    """
    script = Path(__file__).with_name("tiny_run.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    server = subprocess.Popen(
        [sys.executable, str(script), "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def ask(**request: Any) -> dict[str, Any]:
        server.stdin.write(json.dumps(request, default=str) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield ask
    server.stdin.close()
    server.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MB, which is full when the test has filled it."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
