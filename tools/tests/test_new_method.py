import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import new_method
from packages import REPOSITORY, find_packages

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "data", "runs", ".*", "weights")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what new_method.py reads, with a method of a long name that it made."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("CODEOWNERS", "README.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("tools/template", "methods/pea", "shared/src/crosslingual"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=IGNORED)
    shutil.copy(REPOSITORY / "shared/pyproject.toml", folder / "shared")
    new_method.new_method("longest_name", "Alt Name", folder)
    return folder


def test_every_name_is_replaced_and_no_file_is_lost(tree):
    made, template = tree / "methods/longest_name", tree / "tools/template"
    names = {str(path.relative_to(template)) for path in template.rglob("*")}
    assert {str(path.relative_to(made)) for path in made.rglob("*")} == {
        name.replace("template", "longest_name") for name in names
    }
    texts = {path: path.read_text().lower() for path in made.rglob("*") if path.is_file()}
    assert not [path for path, text in texts.items() if "template" in text]
    assert os.access(made / "run.sh", os.X_OK)


def test_the_method_is_found_as_a_package(tree):
    package = find_packages(tree)["longest_name"]
    assert package.import_name == "longest_name"
    assert package.project["name"] == "crosslingual-longest_name"
    entry_points = {"crosslingual.methods": {"longest_name": "longest_name:METHOD"}}
    assert package.project["entry-points"] == entry_points


def test_an_owner_and_a_row_are_all_that_changes_elsewhere(tree):
    path = "methods/longest_name/src/longest_name/method.py"
    row = f"| **Alt Name** |  | [`{path}`]({path}) |  | in work | @crosslingual/longest_name |"
    owner = "/methods/longest_name/  @crosslingual/longest_name"
    for name, added in {"CODEOWNERS": owner, "README.md": row}.items():
        before = (REPOSITORY / name).read_text().splitlines()
        after = (tree / name).read_text().splitlines()
        after.remove(added)
        assert after == before


def test_a_planned_row_keeps_its_paper():
    head = ["| method | paper | its idea | trains | state | owner |", "|---|---|---|---|---|---|"]
    planned = ["| MuLan | [a](b) | | 7 | planned | |", "", "text"]
    path = "methods/mulan/src/mulan/method.py"
    row = f"| **MuLan** | [a](b) | [`{path}`]({path}) | 7 | in work | @crosslingual/mulan |"
    table = new_method.add_row("\n".join([*head, *planned]), "mulan", "MuLan")
    assert table.splitlines() == [*head, row, *planned[1:]]


def test_ruff_finds_nothing_in_the_method(tree):
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "methods/longest_name"]
        answer = subprocess.run(command, cwd=tree, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout


def test_the_method_imports_as_a_registered_one(tree):
    path = os.pathsep.join([str(tree / "methods/longest_name/src"), str(tree / "shared/src")])
    code = "import longest_name; print(longest_name.METHOD.name)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "longest_name\n", answer.stderr


@pytest.mark.skipif(find_spec("torch") is None, reason="the method's own tests need torch")
def test_the_paper_of_the_method_passes_its_tests(tree):
    path = os.pathsep.join([str(tree / "methods/longest_name/src"), str(tree / "shared/src")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest"]
    answer = subprocess.run(
        [*command, "methods/longest_name/tests/test_method.py"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pea", "there is a pea already"),
        ("crosslingual", "there is a crosslingual already"),
        ("template", "there is a template already"),
        ("shared", "there is a shared already"),
        ("json", "module of Python's own"),
        ("class", "no package name"),
        ("My-Method", "no package name"),
        ("2nd", "no package name"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused_in_one_line(tree, name, reason):
    before = sorted(tree.rglob("*"))
    with pytest.raises(ValueError, match=reason):
        new_method.new_method(name, name, tree)
    assert sorted(tree.rglob("*")) == before


def test_the_script_says_what_is_wrong_without_a_traceback():
    command = [sys.executable, str(Path(new_method.__file__)), "pea"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr == "error: there is a pea already; choose another name\n"
