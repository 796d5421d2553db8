"""Finds the packages of this repository on disk, so that no list needs an entry for a new one.

    python tools/packages.py list                # shared benchmarks pea ...
    python tools/packages.py folder pea          # methods/pea
    python tools/packages.py requirements pea    # requirements of it and its tests from the index

It uses only the standard library, because CI runs it before anything is installed.
"""

import argparse
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Package:
    """One of our distributions: its short name, its folder and its import name."""

    name: str
    folder: Path

    @property
    def import_name(self) -> str:
        """The name of the only package under `src/`."""
        (path,) = (self.folder / "src").glob("*/__init__.py")
        return path.parent.name

    @property
    def project(self) -> dict[str, Any]:
        """The table `[project]` of its pyproject.toml."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]


def find_packages(repository: Path = REPOSITORY) -> dict[str, Package]:
    """Finds shared, the worlds, benchmarks, the template, the nodes and every method."""
    folders = [repository / "shared", repository / "tools" / "worlds", repository / "benchmarks"]
    folders += [repository / "tools" / "template", repository / "tools" / "comfyui"]
    folders += sorted((repository / "methods").glob("*"))
    return {
        folder.name: Package(folder.name, folder)
        for folder in folders
        if (folder / "pyproject.toml").is_file()
    }


def third_party_requirements(packages: list[Package], ours: dict[str, Package]) -> list[str]:
    """Collects the index's packages that `packages`, their tests and our packages under them need.

    Args:
        packages: the packages to install. The tests of shared also need the worlds, which depend on
            shared and so cannot be one of its extras.
        ours: every package of the repository, which is installed from its folder instead.

    Returns:
        Requirements as pip reads them, sorted.
    """
    by_distribution = {package.project["name"]: package for package in ours.values()}
    requirements: set[str] = set()
    waiting, seen = list(packages), set()
    if "shared" in ours and ours["shared"] in packages:
        waiting.append(ours["worlds"])
    while waiting:
        package = waiting.pop()
        if package in seen:
            continue
        seen.add(package)
        project = package.project
        wanted = list(project.get("dependencies", []))
        if package in packages:
            wanted += project.get("optional-dependencies", {}).get("test", [])
        for requirement in wanted:
            distribution = re.match(r"[\w.-]+", requirement)[0]
            if distribution in by_distribution:
                waiting.append(by_distribution[distribution])
            else:
                requirements.add(requirement)
    return sorted(requirements)


def main() -> None:
    """Prints the answer to a question, one item per line."""
    packages = find_packages()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=["list", "folder", "requirements"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in packages]
    if unknown:
        parser.error(f"no package {', '.join(unknown)}; there are {', '.join(packages)}")
    named = [packages[name] for name in options.names]
    if options.question == "list":
        print("\n".join(packages))
    elif options.question == "folder":
        print("\n".join(str(package.folder.relative_to(REPOSITORY)) for package in named))
    else:
        print("\n".join(third_party_requirements(named, packages)))


if __name__ == "__main__":
    main()
