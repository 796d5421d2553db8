"""`NAME demo`: runs a method's `run.sh`, the whole pipeline, with settings as variables.

    pea demo --max_train_steps 50          is          MAX_TRAIN_STEPS=50 bash run.sh

`run.sh` stands beside the method's sources, and inside of the package where it is installed from a
wheel. It makes its folder by `python -m crosslingual.cli.demo FOLDER`.
"""

import dataclasses
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from crosslingual.cli import guard
from crosslingual.cli.settings import default_of
from crosslingual.cli.verbs import run_command
from crosslingual.files import MARK, hold_folder, write_json
from crosslingual.folders import read_mark

KIND = "demo"
WORLD = "testbed"  # whose defaults the settings have; another world's are in its own script
ALWAYS = ("output_dir", "num_processes", "seed", "world")


@dataclass
class DemoSettings:
    """Settings of a method's demo, which extends them; each is a variable of its `run.sh`.

    Attributes:
        output_dir: folder of everything that the demo makes; an earlier demo's is renamed.
        num_processes: processes that share a verb; as many as cores, at most 2, if not given.
        seed: seed of the data, the weights and the noise.
        world: world that the demo runs in: testbed, which is embedded, or emoji, whose pictures and
            names are fetched once. Settings that are not given are that world's own.
    """

    output_dir: str = "runs/demo"
    num_processes: int | None = None
    seed: int = 0
    world: str = WORLD


def run_demo(settings: DemoSettings) -> None:
    """Runs the `run.sh` of the package that defines the settings' class.

    Raises:
        ValueError: a verb failed; its own message stands above. Or another demo writes the folder,
            or the method has no demo in that world.
    """
    package = type(settings).__module__.split(".")[0]
    script = find_script(package)
    if settings.world != WORLD and not script.with_name(f"demo_{settings.world}.sh").is_file():
        raise ValueError(f"{package} has no demo in the world {settings.world!r}; give {WORLD}")
    variables = {
        field.name.upper(): _words(value)
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) is not None
        and (settings.world == WORLD or field.name in ALWAYS or value != default_of(field))
    }
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **variables, "PATH": commands}
    words = [sys.executable, guard.__file__, str(os.getpid()), "bash", str(script)]
    folder = Path(settings.output_dir).resolve()
    with hold_folder(folder, folder.with_name(f".{folder.name}.lock")):
        done = subprocess.run(words, env=environment, check=False)
    if done.returncode != 0:
        raise ValueError(
            f"{package} demo ended with code {done.returncode}; its verb's message stands above"
        )


def find_script(package: str) -> Path:
    """A method's `run.sh`, in the installed package or beside its sources."""
    folder = Path(import_module(package).__file__ or "").parent
    for place in (folder, folder.parents[1]):
        if (place / "run.sh").is_file():
            return place / "run.sh"
    raise FileNotFoundError(f"no run.sh in {folder} or {folder.parents[1]}: install it again")


def make_demo_folder(folder: str | Path) -> Path:
    """Makes a demo's folder. An earlier demo's, where a reader may have put files too, is renamed
    to FOLDER-1, FOLDER-2, ...

    Raises:
        ValueError: the folder is not empty and no demo's, or another demo writes it.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        mark = read_mark(folder)
        if mark is None or mark["kind"] != KIND:
            raise ValueError(f"{folder} is not empty and no demo's: choose another --output_dir")
        for lock in folder.rglob(".*lock"):  # of verbs that run
            hold_folder(folder, lock.resolve()).close()
        places = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(1))
        place = next(place for place in places if not os.path.lexists(place))
        folder.rename(place)
        print(f"the earlier demo is now {place}; remove it if you do not need it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"format_version": 1, "kind": KIND})
    return folder


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(run_command(lambda: make_demo_folder(sys.argv[1])))
