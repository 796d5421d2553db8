"""Commands on pages: README.md and the heads of configs promise only what works.

Every command is checked: its verb exists, the verb has its settings, its files are there. What
needs nothing of the user's is run, with tiny settings.
"""

import ast
import functools
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("bash", "sh", "shell", "console")
NAMES = re.compile(r"--([\w-]+)")
PROGRAMS = ("bash", "deepspeed", "pip", "pytest", "python", "sbatch", "torchrun")
LAUNCHERS = ("torchrun", "deepspeed", "python")

Help = Callable[[str, str], str]  # what PROGRAM VERB --help prints


def commands_on(text: str) -> list[str]:
    """The commands on a page in Markdown: in shell fences, after `$ ` in others, indented by four.

    Lines that end in a backslash go on; what stands behind `&&` is a command of its own.
    """
    blocks = []
    for language, body in FENCE.findall(text):
        if language in SHELL:
            blocks.append(re.sub(r"^\$ ", "", body, flags=re.MULTILINE))
        elif not language:
            blocks.append("\n".join(re.findall(r"^\$ (.*)$", body, re.MULTILINE)))
    indented = re.findall(r"^    (?:\$ )?((?:[\w-]+) .*)$", FENCE.sub("", text), re.MULTILINE)
    blocks += [line for line in indented if line.split()[0] in (*PROGRAMS, "crosslingual")]
    return list(_split("\n".join(blocks)))


def commands_in_head(text: str, names: tuple[str, ...]) -> list[str]:
    """The commands in the comment that opens a config: indented, and of the named programs."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#"))
    lines = "\n".join(line.strip() for line in head).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if line.split()[:1] and line.split()[0] in names]
    return list(_split("\n".join(line for line in commands if "--" in line)))


def _split(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        part: list[str] = []
        for word in [*words, "&&"]:
            if word == "&&":
                if part:
                    yield shlex.join(part)
                part = []
            else:
                part.append(word)


def without_launcher(words: list[str]) -> list[str]:
    """`pea train ...` of `torchrun ... -m pea train ...` and of `A=1 python -m pea train ...`."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words and words[0] in LAUNCHERS:
        for place, word in enumerate(words):
            if word in ("-m", "--module"):
                return words[place + 1 :]
    return words


def help_of(program: str, verb: str) -> str:
    """What `PROGRAM VERB --help` prints, in a process of its own."""
    command = [str(Path(sys.executable).with_name(program)), verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_command(line: str, folder: Path, ours: Mapping[str, Help]) -> None:
    """Asserts that a command's verb, settings and files exist; paths are relative to the page's
    folder or to the repository's root. `ours` are the commands that have verbs.
    """
    words = without_launcher(shlex.split(line))
    program, *rest = words
    if program in ours:
        if rest and not rest[0].startswith("-"):
            known = {
                name.replace("-", "_") for name in NAMES.findall(ours[program](program, rest[0]))
            }
            for word in rest[1:]:
                if word.startswith("--") and word != "--help":
                    name = word[2:].partition("=")[0].replace("-", "_")
                    assert name in known, f"{line}: {program} {rest[0]} has no --{name}"
    elif program not in PROGRAMS:
        raise AssertionError(f"{line}: no check for {program}; give a reason among the skips")
    root = next(p for p in (folder, *folder.parents) if (p / "constraints.txt").is_file())
    for word in rest:
        path = word.partition("[")[0]
        is_file = path.startswith(("configs/", "scripts/", "methods/", "tools/"))
        is_file |= path.endswith((".sh", ".py"))
        if is_file or (program in ("bash", "sbatch", "pytest") and "/" in path):
            assert (folder / path).exists() or (root / path).exists(), f"{line}: no {path}"
        if program == "pip" and "[" in word and "/" in word:
            table = tomllib.loads((root / path / "pyproject.toml").read_text())["project"]
            extras = set(word.partition("[")[2].rstrip("]").split(","))
            assert extras <= set(table["optional-dependencies"]), line


def check_page(page: Path, ours: Mapping[str, Help], skips: Mapping[str, str]) -> None:
    """Asserts that every command on a page exists with its settings and files; `skips` maps the
    start of a command that cannot be checked to the reason why.
    """
    lines = commands_on(page.read_text(encoding="utf-8"))
    assert lines, f"{page} has no command"
    for start in skips:
        assert any(line.startswith(start) for line in lines), f"{page} has no {start!r} to skip"
    for line in lines:
        if not any(line.startswith(start) for start in skips):
            check_command(line, page.parent, ours)


class Pages:
    """Tests of a method's README.md and configs.

    Attributes:
        pages: in Markdown, relative to the method's folder.
        runs: the start of a command to the words that make it tiny; these are run in the pages'
            order in one folder, beside the method's configs and the repository's methods.
        skips: the start of a command that cannot be checked to the reason why, by page.
    """

    pages: ClassVar[Sequence[str]] = ("README.md",)
    runs: ClassVar[Mapping[str, str]] = {}
    skips: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test a page and a config; the method's folder is its tests' parent."""
        if "page" in metafunc.fixturenames:
            metafunc.parametrize("page", self.pages)
        if "config" in metafunc.fixturenames:
            configs = Path(metafunc.module.__file__).parents[1] / "configs"
            found = sorted(configs.glob("*.yaml"))
            metafunc.parametrize("config", found, ids=[path.stem for path in found])

    @pytest.fixture(scope="session")
    @classmethod
    def ours(cls, subject: Subject, command: Command) -> dict[str, Help]:
        """Our commands, whose help is asked for once a verb."""

        @functools.cache
        def help_in_fork(program: str, verb: str) -> str:
            request = {"program": program, "argv": [verb, "--help"]}
            return succeeded(command(verb, request))["stdout"][0]

        return {subject.name: help_in_fork, "crosslingual": help_in_fork}

    def test_commands_on_a_page_exist_with_their_settings_and_files(
        self, subject: Subject, ours: dict[str, Help], page: str
    ) -> None:
        check_page((subject.folder / page).resolve(), ours, self.skips.get(page, {}))

    def test_commands_on_pages_run(
        self, subject: Subject, command: Command, tmp_path: Path
    ) -> None:
        """Those in `runs`, in the pages' order."""
        for path in (*subject.folder.glob("configs"), *subject.folder.glob("ds")):
            (tmp_path / path.name).symlink_to(path)
        (tmp_path / "methods").symlink_to(subject.folder.parent)
        pages = [(subject.folder / page).read_text(encoding="utf-8") for page in self.pages]
        lines = [line for page in pages for line in commands_on(page)]
        for start in self.runs:
            assert any(line.startswith(start) for line in lines), f"no page has {start!r}"
        for line in lines:
            for start, more in self.runs.items():
                if line.startswith(start):
                    program, *words = without_launcher(shlex.split(line))
                    request = {"program": program, "argv": [*words, *shlex.split(more)]}
                    answer = command("", {**request, "folder": str(tmp_path)})
                    assert answer["codes"] == [0], (line, answer["stderr"])

    def test_the_demo_by_hand_has_the_settings_and_defaults_of_the_verb(
        self, subject: Subject
    ) -> None:
        """`bash run.sh` and `NAME demo` are the same run."""
        settings = importlib.import_module(f"{subject.name}.settings").DemoSettings()
        text = (subject.folder / "run.sh").read_text(encoding="utf-8")
        found = dict(re.findall(r"^([A-Z_]+)=\$\{\1:?-(.*?)\}(?: +#.*)?$", text, re.MULTILINE))
        for name, value in vars(settings).items():
            words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            assert name.upper() in found and (value is None or found[name.upper()] == words), name

    def test_code_of_the_readme_imports_what_there_is(self, subject: Subject) -> None:
        text = (subject.folder / "README.md").read_text(encoding="utf-8")
        for language, code in FENCE.findall(text):
            for node in ast.walk(ast.parse(code)) if language == "python" else ():
                if isinstance(node, ast.ImportFrom) and node.module.startswith(subject.name):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names), code
                if isinstance(node, ast.Import):
                    assert all(importlib.util.find_spec(alias.name) for alias in node.names), code

    def test_info_counts_every_config_from_a_fresh_clone_without_a_network(
        self, command: Command, tmp_path: Path, config: Path
    ) -> None:
        """Typed in another folder; the config's first line names the verb that it is for."""
        first = next(line for line in config.read_text().splitlines() if line[:1] not in ("#", ""))
        assert re.fullmatch(r"verb: [\w-]+", first), first
        answer = command("info", {"folder": str(tmp_path)}, config=config)
        told = succeeded(answer)["stdout"][0]
        assert re.search(r"\btrains\b.* [\d,]+", told) or re.search(r"trainable", told), told
        assert not any(tmp_path.iterdir())

    def test_commands_in_the_head_of_a_config_exist_with_their_settings_and_files(
        self, subject: Subject, ours: dict[str, Help], config: Path
    ) -> None:
        for line in commands_in_head(config.read_text(encoding="utf-8"), (*ours, *LAUNCHERS)):
            check_command(line, subject.folder, ours)
