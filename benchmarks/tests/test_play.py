"""`crosslingual-bench play` without its page: prompts, exports, cards, pictures."""

import json
import os
import socket

import numpy as np
import pytest

from crosslingual.files import MARK
from crosslingual.worlds import find_world
from crosslingual_benchmarks import methods
from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.play import models
from crosslingual_benchmarks.play.cards import Card, card_html, escape, report_html
from crosslingual_benchmarks.play.exports import plan_page, read_export
from crosslingual_benchmarks.play.models import Studio
from crosslingual_benchmarks.play.prompts import (
    SHOWN,
    check_prompt,
    check_seed,
    example_prompts,
    scenes_by_caption,
)
from crosslingual_benchmarks.play.settings import PlaySettings
from crosslingual_benchmarks.play.verb import check_address


def write_export(folder, mtime=0, **config):
    """An exported folder's mark and config."""
    folder.mkdir(parents=True)
    (folder / MARK).write_text('{"format_version": 1, "kind": "adapter", "files": {}}')
    os.utime(folder / MARK, (mtime, mtime))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def registered(monkeypatch):
    """`fake`, which draws and searches, as an installed method."""

    def load(path, base=None):
        raise FileNotFoundError(f"no encoder\n that {path} names; fetch it")

    method = methods.Method("fake", "a paper", load, load)
    for module in ("methods", "play.exports"):
        place = f"crosslingual_benchmarks.{module}.installed_methods"
        monkeypatch.setattr(place, lambda: {"fake": method})
    return method


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("\u200b\u202e", "is empty"),
        ("x" * 100_000, "100,000 characters: give at most 1,000"),
        ("a red\x00star", "control character (U+0000, place 6)"),
        ("\x1b[31mred", "control character (U+001B, place 1)"),
        ("red \ud83d", "half a character"),
        (None, "no text"),
        (["a"], "no text"),
    ],
)
def test_a_prompt_that_cannot_be_drawn_is_answered_by_one_sentence(text, said):
    with pytest.raises(ValueError) as caught:
        check_prompt(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("  ein roter\nStern\t", "ein roter Stern"),
        ("e\u0301", "\u00e9"),
        ("\u0645\u06cc\u200c\u0634\u0648\u062f", "\u0645\u06cc\u200c\u0634\u0648\u062f"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("x" * 1000, "x" * 1000),
    ],
)
def test_a_prompt_keeps_its_script_and_its_joiners(text, read):
    assert check_prompt(text) == read


@pytest.mark.parametrize("seed", [-1, 1.5, 2**32, None, "a", float("nan"), float("inf"), []])
def test_a_seed_that_no_generator_takes_is_answered_by_one_sentence(seed):
    with pytest.raises(ValueError, match="no whole number"):
        check_seed(seed)
    assert check_seed(7.0) == 7


def test_a_page_shows_no_markup_template_or_hidden_order_of_a_prompt():
    shown = escape("<script>${a}{{b}}\u202e\"'")
    assert not set(shown) & set("<>${}\u202e\"'")
    assert "sandbox" in report_html("<p>${a}</p>") and "${a}" not in report_html("${a}")


@pytest.mark.parametrize(("is_right", "said"), [(True, "shows"), (False, "not show"), (None, None)])
def test_a_card_says_verdict_and_milliseconds(is_right, said):
    shown = card_html(Card("pea", is_right=is_right, latency_ms=1234.4))
    assert "1,234 ms" in shown and ("Judge" in shown) == (said is not None)
    assert said is None or said in shown


def test_the_newest_export_of_each_method_that_fits_the_base_is_found(tmp_path, registered):
    common = {"method": "fake", "base": "testbed:sd"}
    write_export(tmp_path / "a/adapter", 10, **common)
    newest = write_export(tmp_path / "b/adapter", 20, **common, clip="testbed:clip")
    write_export(tmp_path / "c/adapter", 30, method="fake", base="emoji:sd")
    write_export(tmp_path / "d/checkpoint-3", 40, **common)
    write_export(tmp_path / "e/shards", 50, name="not an export")
    write_export(tmp_path / "f/translation", 60, method="fake", kind="translation")
    plan = plan_page(PlaySettings(runs=str(tmp_path)))
    assert plan.base == "testbed:sd" and plan.is_judged
    assert [each.folder for each in plan.draws] == [newest]
    assert [each.folder for each in plan.searches] == [newest]
    assert plan.translator == f"fake:{tmp_path / 'f/translation'}"
    assert plan.notes == ["1 for emoji:sd left out: give --base emoji:sd to use them."]


def test_a_method_is_known_by_its_config(tmp_path, registered):
    assert read_export(write_export(tmp_path / "a", method="other")) is None
    assert read_export(write_export(tmp_path / "b", method="fake", base="x")).clip is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--exports", "pea=nowhere"], "no adapter nowhere: give --exports pea=FOLDER"),
        (["--exports", "nowhere"], "no NAME=FOLDER"),
        (["--exports", "fake={}/shards"], "holds no export of an installed method"),
        (["--exports", "fake={}/translation"], "give --translator fake:"),
        (["--exports", "fake={}/emoji", "--base", "testbed:sd"], "give --base emoji:sd"),
        (["--exports", "a={}/emoji", "a={}/emoji"], "names a twice"),
        (["--base", "testbed:none"], "no embedded model"),
        (["--world", "nowhere"], "not installed"),
        (["--report", "nowhere.html"], "no page nowhere.html"),
        (["--max_waiting", "0"], "nobody could draw"),
        (["--server_port", "70000"], "no port"),
    ],
)
def test_bad_input_is_one_line_in_the_terminal(tmp_path, registered, capsys, words, said):
    write_export(tmp_path / "shards", name="not an export")
    write_export(tmp_path / "translation", method="fake", kind="translation")
    write_export(tmp_path / "emoji", method="fake", base="emoji:sd")
    words = [word.format(tmp_path) for word in words]
    if "--server_port" not in words:
        words += ["--server_port", "0"]
    assert main(["play", "--runs", str(tmp_path / "none"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_port_in_use_is_one_line_with_a_remedy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ValueError, match="give another --server_port") as caught:
            check_address(*taken.getsockname())
    assert "in use" in str(caught.value)


def test_examples_are_captions_that_the_judge_knows_in_many_scripts():
    world = find_world("testbed")
    examples, known = example_prompts(world), scenes_by_caption(world)
    assert {language for language, _ in examples} == set(SHOWN) & set(world.languages)
    assert all(check_prompt(text) in known for _, text in examples)
    assert {"ar", "zh", "th"} <= {language for language, _ in example_prompts(None)}


@pytest.fixture
def studio(tmp_path, registered, monkeypatch):
    """A page's models on the testbed, with a translator and an adapter whose encoder is gone."""
    adapter = write_export(tmp_path / "adapter", method="fake", base="testbed:sd")
    monkeypatch.setattr(models, "load_translator", lambda name: lambda texts: texts)
    settings = PlaySettings(
        exports=[f"fake={adapter}"], translator="a:b", runs=str(tmp_path / "none"), num_pictures=20
    )
    return Studio(plan_page(settings), settings)


def test_every_name_draws_from_the_same_noise_and_a_broken_one_says_why(studio, capsys):
    prompt = example_prompts(studio.plan.world)[0][1]
    as_is, translated, broken = studio.draw(prompt, 3)
    assert np.array_equal(np.asarray(as_is.picture), np.asarray(translated.picture))
    assert as_is.is_right is True and as_is.latency_ms > 0
    assert translated.notes == [f"Read as: {prompt}"]
    assert broken.picture is None and "no encoder that" in broken.fault
    list(studio.draw("what no world says", 3))
    assert capsys.readouterr().err.count("no encoder") == 1  # said once, asked twice
    assert studio.is_unjudged("what no world says") and not studio.is_unjudged(prompt)


def test_a_long_prompt_is_drawn_and_its_cut_is_said(studio):
    card = next(studio.draw("red star " * 100, 0))
    assert card.picture is not None and card.notes[0].startswith("Cut: the model reads")


def test_a_text_finds_its_picture(studio):
    pictures, captions = studio._load_pictures("testbed")
    ((name, cards),) = studio.search(captions[7])
    assert name == "as-is" and cards[0].notes == [captions[7]]
    assert np.array_equal(np.asarray(cards[0].picture), np.asarray(pictures[7]))
