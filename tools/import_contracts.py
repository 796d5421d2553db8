"""Checks with import-linter that our packages import each other only as the design allows.

    benchmarks -> (entry points) methods -> shared <- worlds

Worlds are found by name: only tests import them. ComfyUI's nodes find methods as the benchmarks do,
by entry point. This script writes the contracts from the folders on disk, because pyproject.toml
would need a line by hand for each new method.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packages import Package, find_packages

CONTRACTS = """\
[importlinter]
root_packages =
{all_names}

[importlinter:contract:apart]
name = methods, benchmarks and worlds never import each other
type = independence
modules =
{upper_names}

[importlinter:contract:below]
name = shared imports none of them
type = forbidden
source_modules = {shared_name}
forbidden_modules =
{upper_names}
"""


def write_contracts(packages: dict[str, Package]) -> str:
    """Writes the contracts of packages, including `shared`, as import-linter reads them."""
    shared_name = packages["shared"].import_name
    upper = [package.import_name for name, package in packages.items() if name != "shared"]
    return CONTRACTS.format(
        shared_name=shared_name,
        upper_names="\n".join(f"    {name}" for name in upper),
        all_names="\n".join(f"    {name}" for name in [shared_name, *upper]),
    )


def main() -> int:
    """Runs import-linter on the sources, without installing or importing them."""
    packages = find_packages()
    sources = [str(package.folder / "src") for package in packages.values()]
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config"]
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as config:
        config.write(write_contracts(packages))
        config.flush()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sources)}
        return subprocess.run([*command, config.name], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
