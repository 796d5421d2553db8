"""What commands print: no character of a prompt, a key or a path drives the terminal."""

import sys

import pytest

from crosslingual.cli.verbs import run_command, run_verbs
from crosslingual.data.text import printable

ESCAPED = {
    "two\nlines\tand\0": r"two\nlines\tand\x00",
    "\x1b[31mred\a\x9b": r"\x1b[31mred\x07\x9b",
    "cat\u202egnp.exe": r"cat\u202egnp.exe",
    "\u2066a\u2069 \u200f\u061c": r"\u2066a\u2069 \u200f\u061c",
    "a\u200bb\u200dc\ufeff\xad": r"a\u200bb\u200dc\ufeff\xad",
    "tagged\U000e0041": r"tagged\U000e0041",
    "half \ud83d": r"half \ud83d",
}
READABLE = [
    "ein rotes Haus, \u00e9 e\u0301",
    "שלום עולם",
    "بيت أحمر",
    "می\u200cخواهم",  # Persian joins words by U+200C
    "क्\u200dष",
    "\u3000日本語",
    "👩\u200d🚀 ❤️\u200d🔥",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England's flag
]


@pytest.mark.parametrize(("text", "shown"), ESCAPED.items(), ids=map(ascii, ESCAPED))
def test_what_drives_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", READABLE, ids=ascii)
def test_letters_of_every_script_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("fails", [False, True])
def test_a_command_prints_nothing_raw_and_gives_the_streams_back(
    capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    def command() -> None:
        print("key\u202e \x1b]0;title\a")
        print("path \x9b", file=sys.stderr)
        if fails:
            raise ValueError("no file \x1b[2J\ud83d")

    before = sys.stdout, sys.stderr
    assert run_command(command) == (2 if fails else 0)
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert out == "key\\u202e \\x1b]0;title\\x07\n"
    error = "error: no file \\x1b[2J\\ud83d\n" if fails else ""
    assert err == "path \\x9b\n" + error


def test_a_word_on_the_command_line_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verbs("crosslingual", "", {}, ["\x1b[31mshards\u202e"]) == 2
    assert "no verb '\\x1b[31mshards\\u202e'" in capsys.readouterr().err
