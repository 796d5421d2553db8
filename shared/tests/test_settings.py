"""Settings from YAML and flags: types, errors, and a file that runs again."""

import errno
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from crosslingual.cli.settings import parse_settings, read_settings, write_settings
from crosslingual.cli.verbs import run_command
from crosslingual.data.languages import LanguageCode


@dataclass
class Common:
    """Settings that every example has.

    Attributes:
        learning_rate: the peak of the schedule.
        seed: of everything.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = {"random_seed": "seed"}

    train_data: str
    learning_rate: float = 1e-3
    seed: int = 0


@dataclass
class Example(Common):
    """Settings of an example.

    Attributes:
        train_data: where the shards are.
        languages: what to train on.
        mixed_precision: the dtype of autocast.
        max_train_steps: steps of the optimiser.
        use_ema: whether to keep an average of the weights.
        validation_prompts: prompts to draw while training.
    """

    learning_rate: float = 1e-4
    languages: list[LanguageCode] = field(default_factory=lambda: ["en"])
    mixed_precision: Literal["no", "bf16"] = "no"
    max_train_steps: int | None = None
    use_ema: bool = False
    validation_prompts: list[str] | None = None


def parse(*argv: str) -> Example:
    """Parses as the command `example train` would."""
    return parse_settings(Example, argv, prog="example train", description="Trains an example.")


def test_flags_override_the_config_file(tmp_path: Path) -> None:
    """What the file alone says stays; what both say is the flag's."""
    config = tmp_path / "c.yaml"
    config.write_text(
        "train_data: shards\nlearning_rate: 1e-3\nlanguages: [no, de]\nuse_ema: yes\n"
    )
    settings = parse("--config", str(config), "--learning_rate", "3e-4")
    assert settings == Example("shards", 3e-4, 0, ["no", "de"], use_ema=True)


@pytest.mark.parametrize("words", [["--languages", "de", "fr"], ["--languages=de,fr"]])
def test_lists_are_words_or_commas(words: list[str]) -> None:
    """Both spellings of a list of codes are read."""
    assert parse("--train_data", "x", *words).languages == ["de", "fr"]


def test_prompts_with_commas_stay_whole() -> None:
    """A comma inside a sentence does not split it."""
    settings = parse("--train_data", "x", "--validation_prompts", "a star, red", "ein Stern")
    assert settings.validation_prompts == ["a star, red", "ein Stern"]


def test_languages_are_read_in_their_standard_form() -> None:
    """By flag and in files, so that all later code compares one spelling."""
    assert parse("--train_data", "x", "--languages", "zh_cn,IW").languages == ["zh-CN", "he"]


@pytest.mark.parametrize(
    "text",
    ["languages: [[en]]", "languages: {en: 1}", "seed: {a: b}", "learning_rate: [{}]"]
    + ["languages: &a [*a]", "seed: " + "[" * 5000, "seed: [", "- a", "\xff", "? [a]\n: b"],
)
def test_a_file_of_another_form_is_one_line(text: str, tmp_path: Path) -> None:
    """Whatever YAML can hold."""
    config = tmp_path / "c.yaml"
    config.write_bytes(f"train_data: x\n{text}\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"must (be|hold)|is not YAML"):
        parse("--config", str(config))


@pytest.mark.parametrize(
    ("words", "expected"), [([], True), (["true"], True), (["False"], False), (["no"], False)]
)
def test_booleans_are_bare_or_spelled(words: list[str], expected: bool) -> None:
    """A bare flag is true, and words are read without regard to case."""
    assert parse("--train_data", "x", "--use_ema", *words).use_ema is expected


def test_the_launchers_local_rank_is_ignored() -> None:
    """The deepspeed launcher passes it always, in either form."""
    assert parse("--local_rank=1", "--train_data", "x") == Example("x")
    assert parse("--local-rank", "1", "--train_data", "x") == Example("x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rat", "1"], "unknown setting 'learning_rat'; did you mean 'learning_rate'?"),
        (["--learning_rate", "high"], "setting 'learning_rate' must be a number, not 'high'"),
        (["--max_train_steps", "2.5"], "'max_train_steps' must be a whole number or null, not"),
        (["--mixed_precision", "fp8"], "setting 'mixed_precision' must be no or bf16, not 'fp8'"),
        (["--use_ema", "maybe"], "setting 'use_ema' must be true or false, not 'maybe'"),
        (["--learning_rate"], "setting 'learning_rate' takes one value, not 0"),
        (
            ["--languages", "de", "jp"],
            "setting 'languages': 'jp' is no language code (BCP-47); did",
        ),
        (["--languages", "EN", "en"], "setting 'languages' holds en twice"),
        (["--config"], "--config takes the path"),
        (["--learning_rate", "1", "2"], "setting 'learning_rate' takes one value, not 2"),
    ],
)
def test_a_wrong_setting_is_named(words: list[str], message: str) -> None:
    """The error says which setting, what it may be and what it was."""
    with pytest.raises(ValueError) as raised:
        parse("--train_data", "x", *words)
    assert message in str(raised.value)


@dataclass
class Numbers:
    """Settings with a range.

    Attributes:
        train_batch_size: samples.
        embed_batch_size: samples; 0 for all.
        lr_warmup_steps: steps.
        caption_dropout: a share.
        seed: any number.
    """

    train_batch_size: int = 4
    embed_batch_size: int = 0
    lr_warmup_steps: int = 50
    caption_dropout: float | None = None
    seed: int = 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train_batch_size", "0", "'train_batch_size' must be at least 1, not 0"),
        ("embed_batch_size", "-1", "'embed_batch_size' must be at least 1, not -1"),
        ("lr_warmup_steps", "-1", "'lr_warmup_steps' must be at least 0, not -1"),
        ("caption_dropout", "2", "'caption_dropout' must be from 0 to 1, not 2.0"),
        ("caption_dropout", "-0.1", "'caption_dropout' must be from 0 to 1, not -0.1"),
    ],
)
def test_a_number_that_no_setting_of_its_kind_can_have_is_refused(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_settings(Numbers, [f"--{name}", value], prog="example")


def test_numbers_at_the_ends_of_their_ranges_pass() -> None:
    words = "--train_batch_size 1 --embed_batch_size 0 --lr_warmup_steps 0 --caption_dropout 1"
    found = parse_settings(Numbers, f"{words} --seed -1".split(), prog="example")
    assert found == Numbers(1, 0, 0, 1.0, -1)


def test_an_unknown_key_of_the_file_is_refused(tmp_path: Path) -> None:
    """YAML keys are checked as flags are."""
    config = tmp_path / "c.yaml"
    config.write_text("train_dat: shards\n")
    with pytest.raises(ValueError, match="did you mean 'train_data'"):
        parse("--config", str(config))


def test_missing_settings_and_files_are_named(tmp_path: Path) -> None:
    """A required setting, a config file, a word without a flag."""
    with pytest.raises(ValueError, match="example train needs --train_data"):
        parse()
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        parse("--config", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ValueError, match="unexpected argument 'stray'"):
        parse("stray")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="is not YAML"):
        parse("--config", str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize(
    "settings",
    [
        Example("shards"),
        Example(
            "null", 1e-7, 5, ["no", "zh"], "bf16", 7, True, ["ein Stern: rot", "星, 红", "null"]
        ),
        Example("x", languages=["de"], validation_prompts=["--a", "null", "de,fr"]),
        Example("x", languages=[]),
    ],
)
def test_written_settings_run_again(tmp_path: Path, settings: Example) -> None:
    """`--config` of what was written gives an equal object, whatever YAML makes of its words."""
    write_settings(settings, tmp_path / "s.yaml")
    assert set(yaml.safe_load((tmp_path / "s.yaml").read_text())) == set(vars(settings))
    assert parse("--config", str(tmp_path / "s.yaml")) == settings


def test_paths_are_relative_to_what_holds_them(tmp_path: Path) -> None:
    """`../` in a file starts at the file's folder, on the command line at the working folder."""
    config = tmp_path / "configs" / "c.yaml"
    config.parent.mkdir()
    config.write_text("train_data: ../shards\nvalidation_prompts: [./a, b]\n")
    settings = parse("--config", str(config))
    assert settings.train_data == str(tmp_path / "shards")
    assert settings.validation_prompts == [str(config.parent / "a"), "b"]
    assert parse("--train_data", "./shards").train_data == str(Path.cwd() / "shards")


def test_the_last_file_wins_and_flags_win_over_files(tmp_path: Path) -> None:
    """Wherever `--config` stands; a line `verb:` is no setting."""
    for name, rate in (("a", 1), ("b", 2)):
        (tmp_path / name).write_text(f"verb: train\ntrain_data: {name}\nlearning_rate: {rate}\n")
    files = ["--config", str(tmp_path / "a"), "--config", str(tmp_path / "b")]
    assert parse("--learning_rate", "3", *files) == Example("b", 3)
    assert parse(*files) == Example("b", 2)


def test_former_names_are_read(tmp_path: Path) -> None:
    """By flag and in files that an earlier version wrote."""
    (tmp_path / "s.yaml").write_text("train_data: x\nrandom_seed: 7\n")
    assert read_settings(Example, tmp_path / "s.yaml").seed == 7
    assert parse("--train_data", "x", "--random_seed", "8").seed == 8


def test_help_shows_every_field_with_its_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """The dataclass's docstring is the help."""
    with pytest.raises(SystemExit) as raised:
        parse("--help")
    text = capsys.readouterr().out
    assert raised.value.code == 0
    assert "the peak of the schedule. (a number; default: 0.0001)" in " ".join(text.split())
    assert all(f"--{name}" in text for name in [*vars(Example("x")), "config"])
    assert "Trains an example." in text and "+" not in text


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\n lines"),
        FileNotFoundError("two lines"),
        OSError(errno.ENOSPC, "two lines"),
        PermissionError(errno.EACCES, "two lines"),
    ],
)
def test_a_users_fault_is_one_line_and_code_2(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback for what a user can mend."""
    assert run_command(lambda: _raise(error)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and "two lines" in text and text.count("\n") == 1


def test_other_faults_keep_their_traceback() -> None:
    """Our own mistakes and broken hardware are not dressed up; Ctrl-C is 130."""
    with pytest.raises(OSError):
        run_command(lambda: _raise(OSError(errno.EIO, "input/output error")))
    with pytest.raises(KeyError):
        run_command(lambda: _raise(KeyError("x")))
    assert run_command(lambda: _raise(KeyboardInterrupt())) == 130
    assert run_command(lambda: None) == 0


def test_a_reader_that_has_gone_is_no_error() -> None:
    """`NAME VERB | head -1` ends without a traceback."""
    code = (
        "import crosslingual.cli.verbs as s; s.run_command(lambda: print('text' * 99_999))"
        " == 141 or exit(1)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait() == 0


def test_settings_import_neither_torch_nor_transformers() -> None:
    """`--help` must not pay for them."""
    code = "import sys, crosslingual.cli.settings, crosslingual.training.settings; "
    code += "print(*{'torch', 'transformers', 'pydantic'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == ""
