"""The command: what it lists, what it counts, and one line with the remedy for each error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crosslingual.adapter.artifact import save_artifact
from template.cli import VERBS, main
from template.config import TrainSettings
from template.info import adapter_config

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process: its exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["template", *words])
        try:
            code = main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return run


def test_help_lists_every_verb(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0 and all(verb in out for verb in VERBS)


def test_help_of_training_names_its_settings(command: Command) -> None:
    code, out, _ = command("train", "--help")
    assert code == 0 and "--caption_dropout" in out and "share of rows" in out


def test_info_counts_what_trains(command: Command) -> None:
    code, out, err = command("info", "--hidden_width", "8")
    assert code == 0, err
    config = adapter_config(TrainSettings())
    encoder_width, width = config["encoder_width"], config["width"]
    count = 2 * encoder_width + (encoder_width + 1) * 8 + (8 + 1) * width
    assert f"{count:,}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train", "--learning_rat", "1"], "did you mean 'learning_rate'?"),
        (["train", "--hidden_width", "wide"], "'hidden_width' must be a whole number"),
        (["train"], "train_data is not set"),
        (["train", "--train_data", "nowhere", "--languages", "de"], "nowhere"),
        (["train", "--resume_from_checkpoint", "latest"], "no checkpoint in"),
        (["train", "--config", "no.yaml"], "no config file no.yaml"),
        (["features"], "--features_dir"),
        (["export"], "needs --checkpoint"),
        (["export", "--checkpoint", "nowhere", "--output_dir", "out"], "no checkpoint in"),
        (["generate", "--prompt", "x"], "give --adapter"),
        (["generate", "--prompt", "x", "--adapter", "nowhere"], "no adapter nowhere"),
    ],
)
def test_an_error_of_the_user_is_one_line_with_the_remedy(
    command: Command, words: list[str], message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*words)
    assert code == 2 and message in err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_features_of_other_parts_are_refused(
    command: Command, features: str, tmp_path: Path
) -> None:
    words = ["--train_data", features, "--train_batch_size", "8", "--output_dir", str(tmp_path)]
    code, _, err = command("train", *words, "--languages", "fr", "de")
    assert code == 2 and "stale: languages was ['de', 'fr']" in err
    code, _, err = command("train", *words, "--languages", "de", "fr", "--max_length", "16")
    assert code == 2 and "stale: max_length was 32 and is 16" in err


def test_an_adapter_of_another_method_is_refused(command: Command, tmp_path: Path) -> None:
    save_artifact(tmp_path / "other", state={}, config={"method": "other"}, card="")
    code, _, err = command("generate", "--prompt", "x", "--adapter", str(tmp_path / "other"))
    assert code == 2 and "holds an adapter of 'other'" in err
