"""Commands made of verbs: the list, a verb's settings, and whose settings `info` takes."""

import ast
import dataclasses
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import crosslingual
from crosslingual.cli import main
from crosslingual.cli.verbs import Verb, own_flags, run_verbs

HERE = "test_verbs_module"
seen: list[Any] = []


@dataclass
class TrainSettings:
    """Settings of training.

    Attributes:
        steps: how many.
    """

    steps: int = 1


@dataclass
class TextSettings:
    """Settings of the text half.

    Attributes:
        words: what is said.
    """

    words: list[str] = field(default_factory=list)


def record(settings: Any) -> str:
    seen.append(settings)
    return "a path, which is no exit code"


VERBS = {
    "train": Verb("train it", f"{HERE}:record", f"{HERE}:TrainSettings"),
    "say": Verb("say it", f"{HERE}:record", f"{HERE}:TextSettings", positional="words"),
    "info": Verb("count it", f"{HERE}:record", f"{HERE}:TrainSettings", takes_any_config=True),
}


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    """This file under a name that a verb can be resolved by."""
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    seen.clear()


def run(*argv: str) -> int:
    return run_verbs("example", "An example.", VERBS, argv)


def test_a_verb_gets_its_settings() -> None:
    assert run("train", "--steps", "3") == 0
    assert run("say", "hello", "world") == 0
    assert seen == [TrainSettings(3), TextSettings(["hello", "world"])]


def test_the_launchers_local_rank_may_come_first() -> None:
    """`deepspeed --module example train` puts it before the verb."""
    assert run("--local_rank=1", "train", "--steps", "2") == 0
    assert seen == [TrainSettings(2)]


def test_info_takes_the_config_of_any_verb(tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text("verb: say\nwords: [a]\n")
    (tmp_path / "plain.yaml").write_text("steps: 4\n")
    assert run("info", "--config", str(tmp_path / "text.yaml"), "--words", "b") == 0
    assert run("info", "--config", str(tmp_path / "plain.yaml")) == 0
    assert run("info") == 0
    assert seen == [TextSettings(["b"]), TrainSettings(4), TrainSettings()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "example has no verb 'trian'; did you mean 'train'?"),
        (["train", "--stepz", "1"], "unknown setting 'stepz'; did you mean 'steps'?"),
        (["info", "--config", "{tmp}/odd.yaml"], "the config's verb 'paint' is none of example"),
    ],
)
def test_a_users_mistake_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.yaml").write_text("verb: paint\n")
    assert run(*(word.replace("{tmp}", str(tmp_path)) for word in words)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not seen


def test_help_lists_verbs_and_a_verbs_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == run("--help") == 0
    assert "  train  train it\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("train", "--help")
    text = capsys.readouterr().out
    assert "usage: example train" in text and "train it." in text and "--steps" in text


def test_a_rank_leaves_with_its_code_and_without_pythons_own_shutdown() -> None:
    script = (
        "import atexit, sys; from crosslingual.cli.verbs import run_verbs\n"
        "atexit.register(print, 'exit functions ran')\n"
        "run_verbs('tool', '', {}, ['no-verb']); print('went on')"
    )
    done = {
        world_size: subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "WORLD_SIZE": world_size},
            capture_output=True,
            text=True,
        )
        for world_size in ("1", "2")
    }
    assert (done["1"].returncode, done["1"].stdout) == (0, "went on\nexit functions ran\n")
    assert (done["2"].returncode, done["2"].stdout) == (2, "exit functions ran\n")


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("no caption; JSON keys: a, b; see --caption_keys", "no caption; JSON keys: a, b"),
        (
            "a.jpg is missing; add it, or leave it out with --allow_missing",
            "a.jpg is missing; add it",
        ),
        ("D is taken; choose another --steps or --overwrite", "D is taken; choose another --steps"),
        ("no fr: choose others by --languages", "no fr: choose others by --target"),
        ("empty; run `crosslingual shards --input x` first", None),
        ("--gone", None),
        ("too few: lower --steps", None),
    ],
)
def test_remedies_name_no_flag_that_the_verb_lacks(said: str, printed: str | None) -> None:
    @dataclass
    class Settings:
        FORMER_NAMES = {"languages": "target"}
        steps: int = 1
        target: str = ""

    for kind in (ValueError, FileNotFoundError):
        with pytest.raises(kind) as raised, own_flags(Settings):
            raise kind(said)
        assert str(raised.value) == (printed or said)


def test_flags_that_messages_name_are_settings_of_some_verb() -> None:
    """So no remedy names a flag that was renamed or is nowhere."""
    shared = Path(crosslingual.__file__).parent
    settings = _all_settings(Path(__file__).parents[2])
    for verb in main.VERBS.values():  # some of whose settings are arguments of sources
        settings |= {each.name for each in dataclasses.fields(pkgutil.resolve_name(verb.settings))}
    assert {"learning_rate", "caption_keys"} <= settings
    quoted = re.compile(r"img2dataset .*|--local.rank|--local-dir FOLDER|--name|--config|--help")
    for path in shared.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = quoted.sub("", node.value) if path.name != "url_table.py" else ""
                for flag in re.findall(r"(?<![\w-])--([a-zA-Z]\w+)", text):
                    assert flag in settings or "\n" in text, f"{path}: no verb has --{flag}"


def _all_settings(repository: Path) -> set[str]:
    """The settings of every verb in this repository, by name; its packages are not installed."""
    files = [*repository.glob("*/src/*/**/*.py"), *repository.glob("*/*/src/*/**/*.py")]
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in files)
    classes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    fields = (each for cls in classes if cls.name.endswith("Settings") for each in cls.body)
    return {each.target.id for each in fields if isinstance(each, ast.AnnAssign)}


def test_a_reader_of_the_list_of_verbs_that_has_gone_is_an_exit_code() -> None:
    listing = "raise SystemExit(run_verbs('tool', '', {'go': Verb('go on', 'm:f', 'm:S')}))"
    script = f"from crosslingual.cli.verbs import Verb, run_verbs; {listing}"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
