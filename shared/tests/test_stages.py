"""A demo's stages: verbs in processes of their own, and the folder they work in."""

import json
from pathlib import Path

import pytest

from crosslingual.cli.stages import Stages, make_demo_folder

VERB = """
import json, os, sys
if "--fail" in sys.argv:
    sys.exit(3)
with open(os.path.join(os.environ["SEEN"], os.environ.get("RANK", "0")), "w") as file:
    json.dump([sys.argv[1:], os.environ["OMP_NUM_THREADS"]], file)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose verb records how it was called; the folder of its records."""
    (tmp_path / "stagedemo").mkdir()
    (tmp_path / "stagedemo" / "train.py").write_text(VERB)
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return tmp_path / "seen"


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_verb_runs_in_as_many_processes_as_asked(package: Path, num_processes: int) -> None:
    stages = Stages("stagedemo", num_processes)
    assert stages.run("train", learning_rate=0.1, languages=["de", "zh"]) > 0
    words = ["--learning_rate", "0.1", "--languages", "de", "zh"]
    seen = {path.name: json.loads(path.read_text()) for path in package.iterdir()}
    assert seen == {str(rank): [words, "1"] for rank in range(num_processes)}


def test_a_verb_that_fails_stops_the_demo_in_one_line(package: Path) -> None:
    with pytest.raises(ValueError, match=r"stagedemo\.train ended with code 3; its message stands"):
        Stages("stagedemo", 1).run("train", fail="yes")


def test_a_demos_folder_is_made_anew_and_nothing_else_is_deleted(tmp_path: Path) -> None:
    folder = make_demo_folder(tmp_path / "demo")
    (folder / "old").write_text("old")
    assert [path.name for path in make_demo_folder(folder).iterdir()] == ["demo.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="not empty and no demo's"):
        make_demo_folder(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
