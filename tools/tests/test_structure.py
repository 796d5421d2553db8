"""What no single file shows: imports that run in a circle, and methods that repeat one another."""

import ast
import graphlib
from pathlib import Path

import pytest

from packages import REPOSITORY, Package, find_packages

NUM_LINES = 5  # that stand together in another method too are a repetition
MOST_REPEATED = 0.06


def module_files(package: Package) -> dict[str, Path]:
    """The files of a package by the names of their modules."""
    source = package.folder / "src"
    names = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The known modules that a file imports anywhere: at its top, in functions, for type checks.

    Importing a module from a package is no import of the package's own file.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the whole name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known if names & known else {node.module}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module, colon, _ = node.value.partition(":")  # "pea.train:train", imported when used
            if colon and module in known:
                found.add(module)
    return found & known


def circle_of(package: Package) -> list[str]:
    """Modules of a package that import one another in a circle; empty where none do.

    The entry, `__main__.py` and the table of verbs, names modules as text and is imported by none.
    """
    files = module_files(package)
    graph = {name: imported_modules(path, set(files)) - {name} for name, path in files.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def repeated_shares(methods: dict[str, Path]) -> dict[str, tuple[int, int]]:
    """Lines of each method's sources that stand in another's too, and all of its lines.

    A line is repeated within `NUM_LINES` lines that follow one another, blank ones left out.
    """
    files = {
        name: [
            [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            for path in sorted(folder.rglob("*.py"))
        ]
        for name, folder in methods.items()
    }

    def runs(lines: list[str]) -> list[tuple[str, ...]]:
        return [tuple(lines[i : i + NUM_LINES]) for i in range(len(lines) - NUM_LINES + 1)]

    own = {name: {run for lines in parts for run in runs(lines)} for name, parts in files.items()}
    shares = {}
    for name, parts in files.items():
        others = set().union(*(own[other] for other in own if other != name))
        repeated = 0
        for lines in parts:
            starts = [i for i, run in enumerate(runs(lines)) if run in others]
            repeated += len({i + k for i in starts for k in range(NUM_LINES)})
        shares[name] = (repeated, sum(map(len, parts)))
    return shares


@pytest.mark.parametrize("name", find_packages())
def test_no_two_modules_of_a_package_import_each_other(name):
    circle = circle_of(find_packages()[name])
    assert not circle, " -> ".join(circle)


def test_methods_repeat_one_another_in_few_lines():
    methods = {
        name: package.folder / "src"
        for name, package in find_packages().items()
        if package.folder.parent == REPOSITORY / "methods"
    }
    shares = repeated_shares(methods)
    repeated, total = (sum(counts) for counts in zip(*shares.values(), strict=True))
    assert repeated <= MOST_REPEATED * total, shares


def test_a_circle_is_found_through_a_function_and_through_a_name_in_text(house):
    package = find_packages(house)["pea"]
    source = house / "methods/pea/src/pea"
    (source / "train.py").write_text("def train():\n    from pea.export import save\n")
    (source / "export.py").write_text("import json\n\nfrom pea import data\n")
    (source / "data.py").write_text("import numpy\n")
    assert circle_of(package) == []
    (source / "data.py").write_text("VERBS = {'train': 'pea.train:train'}\n")
    assert set(circle_of(package)) == {"pea.train", "pea.export", "pea.data"}


def test_a_run_of_five_lines_in_two_methods_is_a_repetition_and_one_of_four_is_not(house):
    methods = {name: house / "methods" / name / "src" for name in ("iap", "pea")}
    same = [f"line_{number} = {number}" for number in range(6)]
    (methods["iap"] / "iap/one.py").write_text("\n\n".join([*same, "a = 1"]))
    (methods["pea"] / "pea/one.py").write_text("\n".join(["b = 2", "", *same[:5], "c = 3"]))
    assert repeated_shares(methods) == {"iap": (5, 7), "pea": (5, 7)}
    (methods["pea"] / "pea/one.py").write_text("\n".join(same[:4]))
    assert repeated_shares(methods) == {"iap": (0, 7), "pea": (0, 4)}


def test_every_model_is_loaded_without_code_of_its_own() -> None:
    """`trust_remote_code=False` in every call that loads; diffusers' models know no such code."""
    diffusers_models = ("UNet2DConditionModel", "AutoencoderKL")
    for path in REPOSITORY.rglob("*.py"):
        parts = path.relative_to(REPOSITORY).parts
        if "tests" in parts or any(part.startswith(".") for part in parts):  # environments
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if not is_call or node.func.attr != "from_pretrained":
                continue
            model = ast.unparse(node.func.value)
            says = {option.arg: ast.unparse(option.value) for option in node.keywords}
            is_shared = model == "model_class" and path.name == "weights.py"  # says it in options
            if model not in diffusers_models and not is_shared:
                assert says.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
