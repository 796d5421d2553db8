"""Turns a diff into the list of packages to test, as JSON for a CI matrix.

    python tools/affected.py origin/main               # changes of HEAD since it left origin/main
    git diff --name-only | python tools/affected.py -  # any list of paths

`root` stands for the checks of the repository itself (ruff, import contracts, tools/tests), which
run for any change. A page of prose needs no other tests. A package's file needs that package's
tests. Files of `shared`, of the worlds' sources and of the test machinery need the tests of every
package, and so do files that this script does not know.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import PurePosixPath

from packages import REPOSITORY, find_packages

PROSE_NAMES = {"LICENSE", "CODEOWNERS", ".editorconfig", ".gitignore", ".pre-commit-config.yaml"}
WORLDS = "tools/worlds"
TESTED_BY = {"tools/new_method.py": "template", "tools/deploy/serve.py": "benchmarks"}
TEST_MACHINERY = {"tools/test.sh", "tools/environment.py", "tools/packages.py"}


def affected_packages(paths: Iterable[str], folders: dict[str, str]) -> list[str]:
    """Lists the packages to test after changes to some files.

    Args:
        paths: changed files, relative to the repository's root, with forward slashes.
        folders: folder of each package by name, in the same form.

    Returns:
        `root` first and then package names in the order of `folders`; empty if nothing changed.
    """
    found: set[str] = set()
    num_paths = 0
    for path in paths:
        num_paths += 1
        found |= _affected_by(path, folders)
    return ["root"] * (num_paths > 0) + [name for name in folders if name in found]


def _affected_by(path: str, folders: dict[str, str]) -> set[str]:
    if path.endswith(".md") or PurePosixPath(path).name in PROSE_NAMES:
        return set()
    for name, folder in folders.items():
        if path.startswith(folder + "/"):
            is_used_by_all = name == "shared" or path.startswith(f"{WORLDS}/src/")
            return set(folders) if is_used_by_all else {name}
    if path in TESTED_BY:
        return {TESTED_BY[path]} & set(folders)
    if path.startswith("tools/") and path not in TEST_MACHINERY:
        return set()
    return set(folders)


def changed_paths(base: str) -> list[str]:
    """Lists the files that HEAD changes since it left `base`, with both names of a moved file."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if answer.returncode:
        raise ValueError(f"no diff against {base!r} (is it fetched?): {answer.stderr.strip()}")
    return answer.stdout.split("\0")[:-1]


def main() -> int:
    """Prints the list and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="a commit or branch, or - to read paths from stdin")
    options = parser.parse_args()
    folders = {
        name: package.folder.relative_to(REPOSITORY).as_posix()
        for name, package in find_packages().items()
    }
    try:
        paths = (
            sys.stdin.read().splitlines() if options.base == "-" else changed_paths(options.base)
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(affected_packages(paths, folders)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
