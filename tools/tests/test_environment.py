import os
import subprocess
import venv
from importlib.metadata import distribution
from types import SimpleNamespace

import pytest

from environment import link_distribution, required_distributions


@pytest.fixture
def environment(tmp_path):
    venv.EnvBuilder(symlinks=True, with_pip=False).create(tmp_path / "environment")
    return tmp_path / "environment"


def test_requirements_are_followed_to_the_end_and_no_further():
    assert set(required_distributions(["pytest-xdist"])) >= {"pytest-xdist", "execnet", "iniconfig"}
    assert set(required_distributions(["iniconfig"])) == {"iniconfig"}


def test_an_extra_is_followed_only_where_it_is_asked_for(monkeypatch):
    requires = {"cli": ["core", 'colour; extra == "nice"'], "core": [], "colour": []}

    def fake_distribution(name):
        return SimpleNamespace(metadata={"Name": name}, requires=requires[name])

    monkeypatch.setattr("environment.distribution", fake_distribution)
    assert set(required_distributions(["cli"])) == {"cli", "core"}
    assert set(required_distributions(["cli", "cli[nice]"])) == {"cli", "core", "colour"}
    assert set(required_distributions(['cli; python_version < "3"', "core"])) == {"core"}


def test_linked_distributions_import_and_run_in_the_new_environment_alone(environment):
    for installed in required_distributions(["pytest"]).values():
        link_distribution(installed, environment)
    command = environment / "bin" / "pytest"
    answer = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert f"pytest {distribution('pytest').version}" in answer.stdout + answer.stderr
    python = environment / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import pytest; print(pytest.__file__)"], capture_output=True, text=True
    ).stdout
    assert where.startswith(str(environment))
    assert subprocess.run([python, "-c", "import xdist"], capture_output=True).returncode == 1


def test_links_share_their_bytes_with_the_store(environment):
    installed = distribution("iniconfig")
    link_distribution(installed, environment)
    (linked,) = environment.glob("lib/python*/site-packages/iniconfig/__init__.py")
    assert os.path.samefile(linked, installed.locate_file("iniconfig/__init__.py"))
