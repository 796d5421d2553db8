"""`crosslingual-bench play` without its page: prompts, exports, cards, pictures."""

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from crosslingual.files import MARK
from crosslingual.worlds import find_world, model_folder
from crosslingual_benchmarks import methods
from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.play import models
from crosslingual_benchmarks.play.cards import Card, card_html, escape, report_html
from crosslingual_benchmarks.play.exports import read_export
from crosslingual_benchmarks.play.models import Studio
from crosslingual_benchmarks.play.plan import OWN_REPORT, plan_page
from crosslingual_benchmarks.play.prompts import (
    SHOWN,
    check_prompt,
    check_seed,
    example_prompts,
    scenes_by_caption,
)
from crosslingual_benchmarks.play.settings import PlaySettings
from crosslingual_benchmarks.play.turns import Ask, Turns
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
    assert plan.report == OWN_REPORT and OWN_REPORT.is_file()
    (tmp_path / "e/shards/config.json").write_text("{")
    broken, *left_out = reversed(plan_page(PlaySettings(runs=str(tmp_path))).notes)
    assert left_out == ["1 for emoji:sd left out: give --base emoji:sd to use them."]
    assert "e/shards/config.json is broken" in broken


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
        (["--exports", "fake={}/search", "--base", "testbed:sd"], "give --world emoji"),
        (["--base", "testbed:none"], "no embedded model"),
        (["--world", "nowhere"], "not installed"),
        (["--report", "nowhere.html"], "no page nowhere.html"),
        (["--max_waiting", "0"], "nobody could draw"),
        (["--max_batch_size", "0"], "must be at least 1"),
        (["--server_port", "70000"], "no port"),
    ],
)
def test_bad_input_is_one_line_in_the_terminal(tmp_path, registered, capsys, words, said):
    write_export(tmp_path / "shards", name="not an export")
    write_export(tmp_path / "translation", method="fake", kind="translation")
    write_export(tmp_path / "emoji", method="fake", base="emoji:sd")
    write_export(tmp_path / "search", method="fake", clip="emoji:clip")
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


def test_those_who_wait_are_drawn_together_and_late_ones_catch_up():
    is_drawing, may_end, batches = threading.Event(), threading.Event(), []

    def draw(asks):
        batches.append(sorted(f"{ask.prompt}{ask.place}" for ask in asks))
        is_drawing.set()
        assert may_end.wait(60)
        return [Card(f"{ask.prompt}{ask.place}") for ask in asks]

    def ask_for_all(person):
        return [card.name for card in turns.cards([Ask(place, person, 0) for place in range(2)])]

    turns = Turns(draw, max_batch=3)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask_for_all, "a")]
        assert is_drawing.wait(60)
        answers += [pool.submit(ask_for_all, person) for person in "bcd"]
        while len(turns._waiting) < 8:
            time.sleep(0.001)
        may_end.set()
        assert [each.result(60) for each in answers] == [[f"{p}0", f"{p}1"] for p in "abcd"]
    assert batches[:2] == [["a0"], ["b0", "c0", "d0"]]
    assert [len(batch) for batch in batches] == [1, 3, 3, 1] and batches[2][0] == "a1"


def test_whoever_leaves_is_not_drawn_for_and_a_failure_is_no_dead_end():
    def draw(asks):
        if asks[0].prompt == "bad":
            raise KeyError("a fault of ours")
        return [Card(ask.prompt) for ask in asks]

    turns = Turns(draw, max_batch=8)
    left = turns.cards([Ask(0, "a", 0), Ask(1, "a", 0)])
    assert next(left).name == "a"
    left.close()
    with pytest.raises(KeyError):
        next(turns.cards([Ask(0, "bad", 0)]))
    assert not turns._waiting
    assert next(turns.cards([Ask(0, "b", 0)])).name == "b"


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
    assert next(studio.draw("what no world says", 3)).is_right is None


def test_a_picture_is_the_same_whatever_it_is_drawn_with(studio):
    studio.settings.num_inference_steps = 3
    pipe = studio._load_pipeline("as-is")
    texts, seeds = ["a red star", "مثلث بنفسجي كبير", "red star " * 100, "a red star"], [3, 3, 5, 8]
    together = studio._sample(pipe, texts, seeds)
    alone = [
        studio._sample(pipe, [text], [seed])[0] for text, seed in zip(texts, seeds, strict=True)
    ]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert not np.allclose(together[0], together[3], atol=0.1)  # noise of another seed


def test_a_prompt_that_cannot_be_drawn_does_not_take_the_others_with_it(studio, monkeypatch):
    def sample(pipe, texts, seeds):
        if "bad" in texts:
            raise RuntimeError("too little\nmemory")
        return np.zeros((len(texts), 8, 8, 3))

    monkeypatch.setattr(studio, "_sample", sample)
    fine, bad = studio._draw([Ask(0, "fine", 0), Ask(0, "bad", 0)])
    assert fine.picture is not None and bad.fault == "too little memory"
    first, second = studio._draw([Ask(0, "fine", 0), Ask(0, "fine too", 0)])
    assert first.notes == second.notes == ["One of 2 pictures that were drawn together."]


def test_settings_that_are_zero_are_settings(studio):
    seen = {}
    studio.settings.guidance_scale = 0.0
    pipe = lambda texts, **options: seen.update(options) or SimpleNamespace(images=texts)  # noqa: E731
    studio._sample(pipe, ["a"], [0])
    assert seen["guidance_scale"] == 0.0 and seen["height"] > 0


def test_a_base_without_a_world_is_drawn_with_but_not_judged(tmp_path, registered):
    settings = PlaySettings(
        base=str(model_folder("testbed:sd")), runs=str(tmp_path), num_inference_steps=2
    )
    studio = Studio(plan_page(settings), settings)
    (card,) = studio.draw(example_prompts(None)[0][1], 0)
    assert card.picture is not None and card.is_right is None and not studio.search_names


def test_a_long_prompt_is_drawn_and_its_cut_is_said(studio):
    card = next(studio.draw("red star " * 100, 0))
    assert card.picture is not None and card.notes[0].startswith("Cut: the model reads")


def test_a_text_finds_its_picture(studio):
    pictures, captions = studio._load_pictures("testbed")
    ((name, cards),) = studio.search(captions[7])
    assert name == "as-is" and cards[0].notes == [captions[7]]
    assert np.array_equal(np.asarray(cards[0].picture), np.asarray(pictures[7]))
