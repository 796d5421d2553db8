"""What several tests of shared use."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing.fork_server import forked_runs

TinyRun = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny_run() -> Iterator[TinyRun]:
    """Runs `tiny_run.train` in forked processes: `tiny_run(output_dir=..., steps=6)`.

    The answer holds `codes`, `answers` and `stderr`, a value a rank.
    """
    with forked_runs(Path(__file__).with_name("tiny_run.py"), "serve") as ask:
        yield lambda **request: ask(request)


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
