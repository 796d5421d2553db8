import os
import subprocess
import sys
from pathlib import Path

import pytest

from import_contracts import write_contracts
from packages import find_packages


def lint(house):
    packages = find_packages(house)
    (house / "contracts.ini").write_text(write_contracts(packages))
    sources = [str(package.folder / "src") for package in packages.values()]
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", "contracts.ini"],
        cwd=house,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sources)},
        capture_output=True,
        text=True,
    )


def test_shared_below_and_methods_apart_keep_the_contracts(house):
    (house / "methods/pea/src/pea/train.py").write_text("import crosslingual\n")
    (house / "benchmarks/src/crosslingual_benchmarks/run.py").write_text("import crosslingual\n")
    (house / "tools/worlds/src/crosslingual_worlds/drawn.py").write_text("import crosslingual\n")
    answer = lint(house)
    assert answer.returncode == 0, answer.stdout
    assert "Contracts: 2 kept, 0 broken" in answer.stdout


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("methods/pea/src/pea/train.py", "iap"),
        ("methods/pea/src/pea/train.py", "crosslingual_benchmarks"),
        ("benchmarks/src/crosslingual_benchmarks/run.py", "pea"),
        ("shared/src/crosslingual/engine.py", "pea"),
        ("shared/src/crosslingual/engine.py", "crosslingual_benchmarks"),
        ("shared/src/crosslingual/engine.py", "crosslingual_worlds"),
        ("methods/pea/src/pea/train.py", "crosslingual_worlds"),
        ("benchmarks/src/crosslingual_benchmarks/run.py", "crosslingual_worlds"),
        ("tools/worlds/src/crosslingual_worlds/drawn.py", "pea"),
    ],
)
def test_an_import_against_the_direction_breaks_them(house, file, imported):
    (house / file).write_text(f"def late():\n    import {imported}\n")
    answer = lint(house)
    assert answer.returncode == 1
    assert f"-> {imported}" in answer.stdout
