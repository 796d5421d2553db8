"""Makes a virtual environment with only the dependencies that one package declares, in seconds.

    store/bin/python tools/environment.py ENVIRONMENT PACKAGE

Run it with the interpreter of an environment that has everything (the store of tools/test.sh). The
distributions that the package and its tests require, directly or not, are hard-linked from there:
no bytes are copied, and an undeclared import fails as it would for a user. `pip install` then finds
its requirements met. If this script missed one, pip would fetch it: the links only save time and
disk space (a torch for each of eight packages).
"""

import argparse
import os
import shutil
import sysconfig
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from packages import find_packages, third_party_requirements


def required_distributions(requirements: list[str]) -> dict[str, Distribution]:
    """Follows requirements through the metadata of this interpreter's installed distributions.

    Raises:
        importlib.metadata.PackageNotFoundError: a requirement is not installed here.
    """
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(requirement), {""}) for requirement in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        installed = distribution(requirement.name)
        found[installed.metadata["Name"]] = installed
        asked = {(requirement.name, extra) for extra in {"", *requirement.extras}} - seen
        seen |= asked
        if asked:
            asked_extras = {extra for _, extra in asked}
            waiting += [(Requirement(line), asked_extras) for line in installed.requires or []]
    return found


def link_distribution(installed: Distribution, environment: Path) -> None:
    """Hard-links an installed distribution's files, and copies its scripts to run in `environment`.

    Args:
        installed: a distribution of this interpreter, installed with its list of files.
        environment: the root of a virtual environment of the same Python.
    """
    store = Path(sysconfig.get_path("data"))
    scripts = Path(sysconfig.get_path("scripts"))
    for file in installed.files:
        source = Path(os.path.normpath(installed.locate_file(file)))
        target = environment / source.relative_to(store)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.parent == scripts:
            text = source.read_bytes()
            target.write_bytes(text.replace(bytes(scripts), bytes(environment / "bin"), 1))
            shutil.copymode(source, target)
        elif not target.exists():  # two distributions may list the same file of a namespace
            os.link(source, target)


def main() -> None:
    """Makes the environment, replacing an old one."""
    packages = find_packages()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", type=Path)
    parser.add_argument("package", choices=list(packages))
    options = parser.parse_args()
    environment = options.environment.resolve()
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(environment)
    requirements = third_party_requirements([packages[options.package]], packages)
    for installed in required_distributions(requirements).values():
        link_distribution(installed, environment)


if __name__ == "__main__":
    main()
