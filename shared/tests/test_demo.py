"""A method's demo: its run.sh, the variables that it gets, and the folder that it works in."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crosslingual.cli.demo import DemoSettings, find_script, make_demo_folder, run_demo
from crosslingual.files import hold_folder

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


def test_an_earlier_demo_is_renamed_and_nothing_else_is_touched(tmp_path: Path) -> None:
    folder = make_demo_folder(tmp_path / "demo")
    for number in (1, 2):
        (folder / "notes.txt").write_text(str(number))
        assert [path.name for path in make_demo_folder(folder).iterdir()] == ["crosslingual.json"]
        assert (tmp_path / f"demo-{number}/notes.txt").read_text() == str(number)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "demo.json").write_text("{}")
    with pytest.raises(ValueError, match="not empty and no demo's"):
        make_demo_folder(tmp_path / "mine")
    command = [sys.executable, "-m", "crosslingual.cli.demo", str(tmp_path / "mine")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert (tmp_path / "mine" / "demo.json").read_text() == "{}"


def test_a_demo_whose_verb_still_runs_is_left_alone(tmp_path: Path) -> None:
    folder = make_demo_folder(tmp_path / "demo")
    with hold_folder(folder / "run"):
        process = os.fork()
        if process == 0:
            try:
                make_demo_folder(folder)
            except ValueError as error:
                (tmp_path / "refusal").write_text(str(error))
            os._exit(0)
        os.waitpid(process, 0)
    expected = f"demo is being written by process {os.getpid()} on "
    assert expected in (tmp_path / "refusal").read_text()


def test_what_a_demo_runs_ends_with_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "run.sh").write_text('echo $$ > "$SEEN"; sleep 100')
    demo = os.fork()
    if demo == 0:
        run_demo(Settings(output_dir=str(package / "out")))
        os._exit(0)
    deadline = time.monotonic() + 20
    while not (package / "seen").exists() or not (package / "seen").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(demo, signal.SIGKILL)
    os.waitpid(demo, 0)
    script = Path(f"/proc/{(package / 'seen').read_text().strip()}")
    while script.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
