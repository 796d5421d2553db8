import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def house(tmp_path):
    """A small repository: shared, worlds, benchmarks and two methods, each an empty package."""
    shared = '"crosslingual-shared @ {root:parent:uri}/shared"'
    worlds = '"crosslingual-worlds @ {root:parent:parent:uri}/tools/worlds"'
    add_package(tmp_path / "shared", "crosslingual", '"numpy>=2", "pyyaml"', '"pytest"')
    add_package(
        tmp_path / "tools" / "worlds", "crosslingual_worlds", f'{shared}, "fonts"', '"pytest"'
    )
    add_package(tmp_path / "benchmarks", "crosslingual_benchmarks", shared, '"pytest"')
    add_package(
        tmp_path / "methods" / "iap", "iap", f'{shared}, "peft"', f'"pytest", "scipy", {worlds}'
    )
    add_package(tmp_path / "methods" / "pea", "pea", shared, '"pytest"')
    (tmp_path / "methods" / "no_package").mkdir()
    return tmp_path


def add_package(folder, import_name, dependencies, test):
    source = folder / "src" / import_name
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "crosslingual-{folder.name}"\ndependencies = [{dependencies}]\n'
        f"[project.optional-dependencies]\ntest = [{test}]\n"
    )
