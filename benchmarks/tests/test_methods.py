"""Methods are found by their entry points, here those of distributions written for the test."""

import sys
from collections.abc import Callable

import pytest

from crosslingual_benchmarks.methods import find_method, installed_methods

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a distribution importable whose module holds `METHOD`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name, source, module=None):
        module = module or f"method_{name}"
        sys.modules.pop(module, None)  # of the test before
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[crosslingual.methods]\n{name} = {module}:METHOD\n"
        )

    return add


SOURCE = """
from crosslingual.method import Method
METHOD = Method({name!r}, "a paper", None, None)
"""


def test_a_method_that_is_installed_is_found_without_naming_it_here(install):
    install("zeta", SOURCE.format(name="zeta"))
    assert find_method("zeta").paper == "a paper"
    assert "zeta" in installed_methods()
    assert list(installed_methods()) == sorted(installed_methods())


def test_a_method_that_is_not_installed_is_an_error_that_says_which_are(install):
    install("zeta", SOURCE.format(name="zeta"))
    with pytest.raises(ValueError, match="did you mean 'zeta'.* installed: .*zeta"):
        find_method("zeto")


def test_an_entry_point_that_is_no_method_is_named(install):
    install("zeta", "METHOD = 3")
    with pytest.raises(ValueError, match="'zeta' .* names method_zeta:METHOD, which is no"):
        installed_methods()


def test_two_packages_of_one_name_are_refused(install):
    install("zeta", SOURCE.format(name="zeta"))
    install("zeta", SOURCE.format(name="other"), module="another")
    with pytest.raises(ValueError, match="two packages register a method 'zeta'"):
        find_method("zeta")
