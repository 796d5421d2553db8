import json
import subprocess
import sys
from pathlib import Path

import pytest

import affected

FOLDERS = {
    "shared": "shared",
    "worlds": "tools/worlds",
    "benchmarks": "benchmarks",
    "template": "tools/template",
    "iap": "methods/iap",
    "pea": "methods/pea",
}
ALL = ["root", *FOLDERS]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], []),
        (["README.md"], ["root"]),
        (["methods/pea/README.md", "shared/CHANGELOG.md", "LICENSE"], ["root"]),
        (["methods/pea/src/pea/method.py"], ["root", "pea"]),
        (["methods/pea/configs/testbed.yaml"], ["root", "pea"]),
        (["methods/pea/pyproject.toml", "methods/iap/run.sh"], ["root", "iap", "pea"]),
        (["methods/pea2/src/pea2/method.py"], ALL),
        (["benchmarks/perf/step.py"], ["root", "benchmarks"]),
        (["tools/template/src/NAME/method.py"], ["root", "template"]),
        (["tools/new_method.py"], ["root", "template"]),
        (["tools/deploy/serve.py"], ["root", "benchmarks"]),
        (["tools/worlds/pretrain/unet.py", "tools/worlds/tests/test_judge.py"], ["root", "worlds"]),
        (["tools/worlds/src/crosslingual_worlds/testing/miniatures.py"], ALL),
        (["tools/worlds/src/crosslingual_worlds/drawn/weights/sd/unet.safetensors"], ALL),
        (["tools/random_base.py"], ["root"]),
        (["tools/affected.py"], ["root"]),
        (["shared/src/crosslingual/loader.py"], ALL),
        (["constraints.txt"], ALL),
        (["pyproject.toml"], ALL),
        (["tools/test.sh"], ALL),
        ([".github/workflows/ci.yml"], ALL),
        ([".ci/run"], ALL),
        (["a_file_of_tomorrow"], ALL),
        (["README.md", "benchmarks/src/crosslingual_benchmarks/cli.py"], ["root", "benchmarks"]),
    ],
)
def test_a_change_affects(paths, expected):
    assert affected.affected_packages(paths, FOLDERS) == expected


def test_both_names_of_a_moved_file_count(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "naïve.py").write_text("print()\n" * 20)
    git("add", ".")
    git("commit", "-qm", "first")
    git("checkout", "-qb", "change")
    (tmp_path / "two").mkdir()
    git("mv", "one/naïve.py", "two/naïve.py")
    git("commit", "-qm", "move")
    monkeypatch.setattr(affected, "REPOSITORY", tmp_path)
    assert affected.changed_paths("main") == ["one/naïve.py", "two/naïve.py"]
    with pytest.raises(ValueError, match="no diff against 'nowhere'"):
        affected.changed_paths("nowhere")


def test_the_script_reads_paths_from_stdin_and_prints_a_matrix():
    script = Path(affected.__file__)
    answer = subprocess.run(
        [sys.executable, script, "-"], input="methods/pea/run.sh\n", capture_output=True, text=True
    )
    assert json.loads(answer.stdout) == ["root", "pea"]
