"""Commands on pages: README.md and the heads of configs promise only what works.

Every command is checked: its verb exists, the verb has its settings, its files are there. What
needs nothing of the user's is run, with tiny settings.
"""

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("bash", "sh", "shell", "console")
OURS = ("crosslingual", "crosslingual-bench")
PROGRAMS = ("bash", "deepspeed", "pip", "pytest", "python", "sbatch", "torchrun", *OURS)
LAUNCHERS = ("torchrun", "deepspeed", "python")


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
    blocks += [line for line in indented if line.split()[0] in PROGRAMS]
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


class Pages:
    """Tests of a method's README.md and configs.

    Attributes:
        runs: the start of a command to the words that make it tiny; these are run in order in one
            folder, beside the method's configs. `--help` instead asks for help.
        skips: the start of a command that cannot be checked to the reason why.
    """

    runs: ClassVar[Mapping[str, str]] = {}
    skips: ClassVar[Mapping[str, str]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test a config; the method's folder is its tests' parent."""
        if "config" in metafunc.fixturenames:
            configs = Path(metafunc.module.__file__).parents[1] / "configs"
            found = sorted(configs.glob("*.yaml"))
            metafunc.parametrize("config", found, ids=[path.stem for path in found])

    @pytest.fixture(scope="class")
    def settings_of(self, command: Command) -> Any:
        """The settings that a verb of one of our commands lists, asked for once."""
        told: dict[tuple[str, str], set[str]] = {}

        def ask(program: str, verb: str) -> set[str]:
            if (program, verb) not in told:
                request = {"program": program, "argv": [verb, "--help"]}
                text = succeeded(command(verb, request))["stdout"][0]
                told[program, verb] = set(re.findall(r"--([\w-]+)", text)) | {"help"}
            return told[program, verb]

        return ask

    def check(self, line: str, folder: Path, settings_of: Any, ours: tuple[str, ...]) -> None:
        """Asserts that a command's verb, settings and files exist.

        Args:
            line: the command.
            folder: of the page.
            settings_of: of the fixture.
            ours: commands that have verbs.
        """
        words = without_launcher(shlex.split(line))
        program, *rest = words
        if program in ours:
            if not rest or rest[0].startswith("-"):
                return
            known = settings_of(program, rest[0])
            for word in rest[1:]:
                if word.startswith("--"):
                    name = word[2:].partition("=")[0]
                    assert {name, name.replace("-", "_")} & known, f"{line}: no --{name}"
        elif program not in PROGRAMS:
            raise AssertionError(f"{line}: no check for {program}; add it to runs or skips")
        root = _root(folder)
        for word in rest:
            path = word.partition("[")[0]
            is_ours = program in ("bash", "sbatch", "pytest") and "/" in path
            is_ours |= path.startswith(("configs/", "scripts/", "methods/", "tools/"))
            is_ours |= path.endswith((".sh", ".py"))
            if is_ours:
                assert (folder / path).exists() or (root / path).exists(), f"{line}: no {path}"
            if program == "pip" and "[" in word and "/" in word:
                table = tomllib.loads((root / path / "pyproject.toml").read_text())["project"]
                extras = word.partition("[")[2].rstrip("]").split(",")
                assert set(extras) <= set(table["optional-dependencies"]), line

    def test_commands_of_the_readme_exist_with_their_settings_and_files(
        self, subject: Subject, settings_of: Any
    ) -> None:
        text = (subject.folder / "README.md").read_text(encoding="utf-8")
        lines = commands_on(text)
        assert lines, "a page without a command"
        for line in lines:
            if not any(line.startswith(start) for start in self.skips):
                self.check(line, subject.folder, settings_of, (subject.name, *OURS))
        for start in {**self.skips, **self.runs}:
            assert any(line.startswith(start) for line in lines), f"the page has no {start!r}"

    def test_commands_of_the_readme_run(
        self, subject: Subject, command: Command, tmp_path: Path
    ) -> None:
        """Those in `runs`, in the page's order."""
        for name in ("configs", "ds"):
            if (subject.folder / name).is_dir():
                (tmp_path / name).symlink_to(subject.folder / name)
        for line in commands_on((subject.folder / "README.md").read_text(encoding="utf-8")):
            for start, more in self.runs.items():
                if line.startswith(start):
                    program, *words = without_launcher(shlex.split(line))
                    request = {"program": program, "argv": [*words, *shlex.split(more)]}
                    answer = command("", {**request, "folder": str(tmp_path)})
                    assert answer["codes"] == [0], (line, answer["stderr"])

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
        self, subject: Subject, settings_of: Any, config: Path
    ) -> None:
        ours = (subject.name, *OURS)
        for line in commands_in_head(config.read_text(encoding="utf-8"), (*ours, *LAUNCHERS)):
            self.check(line, subject.folder, settings_of, ours)


def _root(folder: Path) -> Path:
    """The repository's root above a folder."""
    return next(p for p in (folder, *folder.parents) if (p / "constraints.txt").is_file())
