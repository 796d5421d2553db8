"""Makes a virtual environment that holds what one package declares, and nothing else, in seconds.

    store/bin/python tools/environment.py ENVIRONMENT PACKAGE

Run it with the interpreter of an environment that has everything (the store of tools/test.sh). The
distributions that the package and its tests require, directly or not, are hard-linked from there:
no bytes are copied, and an import that is not declared fails as it would for a user. `pip install`
then finds its requirements met. If this script forgot one, pip would fetch it: the links save time
and disk (a torch for each of eight packages) and decide nothing.
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
    """Follows requirements through the metadata of what this interpreter has installed.

    Raises:
        importlib.metadata.PackageNotFoundError: for a requirement that is not installed here.
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
    """Hard-links an installed distribution's files; its scripts are copied to run in `environment`.

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
        elif not target.exists():  # a namespace's file may be listed by two distributions
            os.link(source, target)


def main() -> None:
    """Makes the environment anew."""
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
