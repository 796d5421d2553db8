"""Makes a new method from the template: a package that installs, trains and passes its tests.

    python tools/new_method.py mulan --title MuLan
    pip install -e methods/mulan

It copies `tools/template` to `methods/NAME` under the new name, gives the folder an owner in
CODEOWNERS and a row in README.md's table of methods (its own row, if the method is planned there),
and changes nothing else: CI and import contracts find packages on disk. You then write `method.py`,
and change `step.py` and the tests with it. It needs ruff, because the new name changes the order of
imports.
"""

import argparse
import keyword
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from packages import REPOSITORY, find_packages

TEMPLATE = Path("tools") / "template"
LEFT_BEHIND = ("__pycache__", "*.egg-info", "dist", "data", "runs", ".*")


def check_name(name: str, repository: Path) -> None:
    """Rejects a name that cannot be a folder, a command and a package of ours.

    Raises:
        ValueError: with the reason.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no package name: use lower-case letters, digits and _")
    taken = {package.import_name for package in find_packages(repository).values()}
    folders = {path.name for path in (repository / "methods").glob("*")}
    if name in taken | folders | set(find_packages(repository)):
        raise ValueError(f"there is a {name} already; choose another name")
    if name in sys.stdlib_module_names:
        raise ValueError(f"{name} is a module of Python's own; choose another name")


def copy_template(name: str, repository: Path) -> Path:
    """Copies the template with its name replaced, in paths and texts, and returns the folder."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=repository / "methods"))
    target = temporary / name
    shutil.copytree(repository / TEMPLATE, target, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    for path in sorted(target.rglob("*"), reverse=True):  # files before their folder
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            text = text.replace(TEMPLATE.as_posix(), f"methods/{name}").replace("template", name)
            path.write_text(text, encoding="utf-8")
        if "template" in path.name:
            path.rename(path.with_name(path.name.replace("template", name)))
    target = target.rename(repository / "methods" / name)
    temporary.rmdir()
    for words in (["check", "--select", "I", "--fix", "-q"], ["format", "-q"]):
        subprocess.run([sys.executable, "-m", "ruff", *words, target], cwd=repository, check=True)
    return target


def add_owner(codeowners: str, name: str) -> str:
    """Returns CODEOWNERS with a line for the method after the other methods' lines."""
    lines = codeowners.splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("/methods/"))
    column = lines[last].index("@")
    lines.insert(last + 1, f"/methods/{name}/".ljust(column - 1) + f" @crosslingual/{name}")
    return "\n".join(lines) + "\n"


def add_row(readme: str, name: str, title: str) -> str:
    """Returns README.md with the method's row in the table under `## Methods`.

    A row whose first cell is the title keeps its cells about the paper; otherwise a row is added.

    Raises:
        ValueError: README.md has no such table.
    """
    lines = readme.splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("| method |")]
    if not heads:
        raise ValueError("README.md has no table that starts with '| method |'")
    end = heads[0]
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    rows = {_cells(lines[i])[0].strip("*").lower(): i for i in range(heads[0] + 2, end)}
    place = rows.get(title.lower())
    cells = [""] * len(_cells(lines[heads[0]])) if place is None else _cells(lines[place])
    path = f"methods/{name}/src/{name}/method.py"
    cells[0], cells[2] = f"**{title}**", f"[`{path}`]({path})"
    cells[-2:] = ["in work", f"@crosslingual/{name}"]
    row = "| " + " | ".join(cells) + " |"
    lines[slice(end, end) if place is None else slice(place, place + 1)] = [row]
    return "\n".join(lines) + "\n"


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def new_method(name: str, title: str, repository: Path = REPOSITORY) -> Path:
    """Makes the method and returns its folder.

    Raises:
        ValueError: the name is taken or invalid, ruff is missing, or the README has no such table.
    """
    check_name(name, repository)
    if find_spec("ruff") is None:
        raise ValueError("ruff is not installed here: pip install ruff")
    owners, readme = repository / "CODEOWNERS", repository / "README.md"
    new_owners = add_owner(owners.read_text(encoding="utf-8"), name)
    new_readme = add_row(readme.read_text(encoding="utf-8"), name, title)
    folder = copy_template(name, repository)
    owners.write_text(new_owners, encoding="utf-8")
    readme.write_text(new_readme, encoding="utf-8")
    return folder


def main() -> int:
    """Makes a method and prints the next steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="folder, package and command, such as mulan")
    parser.add_argument("--title", help="the method's name in the README; NAME if not given")
    options = parser.parse_args()
    try:
        folder = new_method(options.name, options.title or options.name)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    relative = folder.relative_to(REPOSITORY)
    print(f"made {relative}, a line in CODEOWNERS and a row in README.md; next:")
    print(f"  pip install -e '{relative}[test]' && pytest {relative}/tests")
    print(f"  write {relative}/src/{options.name}/method.py, then step.py and the tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
