"""A method's demo: its run.sh, the variables that it gets, and the folder that it works in."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crosslingual.cli.demo import DemoSettings, find_script, make_demo_folder, run_demo

SCRIPT = """set -eu
printf '%s|' "$OUTPUT_DIR" "${NUM_PROCESSES-unset}" "$SEED" "$LANGUAGES" > "$SEEN"
command -v python >> "$SEEN"
exit ${CODE:-0}
"""


@dataclass
class Settings(DemoSettings):
    """Settings of a demo in a package that a test has made.

    Attributes:
        languages: that are shown.
    """

    languages: list[str] = field(default_factory=lambda: ["de", "zh"])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with its run.sh beside the sources; the file of what the script saw."""
    folder = tmp_path / "src" / "democase"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (tmp_path / "run.sh").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    monkeypatch.delitem(sys.modules, "democase", raising=False)
    monkeypatch.setattr(Settings, "__module__", "democase.settings")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return tmp_path


def test_settings_are_the_scripts_variables(package: Path) -> None:
    """Lists are words; what is not given is left to the script; python is this one."""
    run_demo(Settings(output_dir="x", seed=3))
    python = str(Path(sys.executable).parent / "python")
    assert (package / "seen").read_text().strip().split("|") == ["x", "unset", "3", "de zh", python]


def test_the_script_of_an_installed_package_is_inside_of_it(package: Path) -> None:
    assert find_script("democase") == package / "run.sh"
    inside = package / "src" / "democase" / "run.sh"
    inside.write_text(SCRIPT)
    assert find_script("democase") == inside
    inside.unlink()
    (package / "run.sh").unlink()
    with pytest.raises(FileNotFoundError, match=r"no run\.sh in"):
        find_script("democase")


def test_a_verb_that_fails_ends_the_demo_in_one_line(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "3")
    with pytest.raises(ValueError, match="democase demo ended with code 3; its verb's message"):
        run_demo(Settings())


def test_a_demos_folder_is_made_anew_and_nothing_else_is_deleted(tmp_path: Path) -> None:
    folder = make_demo_folder(tmp_path / "demo")
    (folder / "old").write_text("old")
    assert [path.name for path in make_demo_folder(folder).iterdir()] == ["demo.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="not empty and no demo's"):
        make_demo_folder(tmp_path / "mine")
    command = [sys.executable, "-m", "crosslingual.cli.demo", str(tmp_path / "mine")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert json.loads((folder / "demo.json").read_text()) == {}
