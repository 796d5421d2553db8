"""What `crosslingual-bench generation` is told: refusals, defaults, names, and its repetition."""

import dataclasses
import shlex

import pytest

from crosslingual.cli.settings import parse_settings
from crosslingual.method import Method
from crosslingual_benchmarks.generation import pipeline as generation_pipeline
from crosslingual_benchmarks.generation.pipeline import made_with, pipeline_of
from crosslingual_benchmarks.generation.prompts import Prompt, PromptSet
from crosslingual_benchmarks.generation.settings import (
    PROG,
    GenerationSettings,
    arm_of,
    with_defaults,
)
from crosslingual_benchmarks.generation.verb import evaluate_generation
from crosslingual_benchmarks.results import command_of


def settings_of(tmp_path, **others):
    told = {"method": "painter", "dataset": "testbed", "languages": ["de", "ja"]}
    told |= {"num_prompts": 6, "num_motif_prompts": 2, "num_references": 20, "num_bootstrap": 50}
    told |= {"num_fid_bootstrap": 5, "scheduler": "base", "output_dir": str(tmp_path / "out")}
    return GenerationSettings(**{**told, **others})


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"dataset": "mg19"}, "no data set 'mg19'; did you mean 'mg18'"),
        ({"dataset": "mg18", "num_prompts": None}, "data set mg18 needs --root"),
        ({"dataset": "prompts", "num_prompts": None}, "data set prompts needs --prompts"),
        ({"dataset": "mc18"}, "data set mc18 takes no --num_prompts"),
        ({"root": "x"}, "data set testbed takes no --root"),
        ({"resolution": 128}, "the judge of the testbed reads pictures of 64 pixels"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"num_prompts": 1}, "FID of 1 picture means nothing"),
        ({"dataset": "mc18", "num_prompts": None, "languages": ["sv"]}, "no prompt in 'sv'"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(tmp_path, others, words):
    with pytest.raises(ValueError, match=words):
        evaluate_generation(lambda: None, settings_of(tmp_path, **others))
    assert not (tmp_path / "out").exists()


def test_some_photographs_without_the_others_are_refused(tmp_path):
    prompts = [Prompt("a", {"de": "x"}, "x", image=tmp_path), Prompt("b", {"de": "y"}, "y")]
    settings = settings_of(tmp_path, dataset="mc18", num_prompts=None, languages=["de"])
    with pytest.raises(ValueError, match="1 of 2 general prompts of mine name no image"):
        evaluate_generation(lambda: None, settings, PromptSet("mine", prompts, {}))


def test_published_settings_are_mg18_s_and_flags_override_them(tmp_path):
    told = with_defaults(settings_of(tmp_path, dataset="mg18", root="x", guidance_scale=7.5))
    names = ("num_inference_steps", "guidance_scale", "resolution", "extractor")
    assert [getattr(told, n) for n in names] == [50, 7.5, 512, "inception-v3-compat"]


def test_the_command_repeats_the_settings(tmp_path):
    settings = settings_of(tmp_path, arm="my arm", seed=3, use_references=False, base="testbed:sd")
    words = shlex.split(command_of(PROG, settings))
    assert words[:2] == ["crosslingual-bench", "generation"]
    assert parse_settings(GenerationSettings, words[2:], prog="x") == settings


def test_the_base_is_as_is_or_the_upper_bound():
    told = GenerationSettings("base", "mc18")
    assert arm_of(told) == "as_is"
    assert arm_of(dataclasses.replace(told, prompt_language="english")) == "english_upper_bound"
    assert arm_of(dataclasses.replace(told, arm="mine")) == "mine"


def test_methods_are_called_with_path_and_base_or_refused(monkeypatch):
    paints = Method("paints", "none", lambda path, base: (path, base), None)
    embeds = Method("embeds", "none", None, lambda path: path)
    methods = {"embeds": embeds, "paints": paints}
    monkeypatch.setattr(generation_pipeline, "find_method", methods.__getitem__)
    monkeypatch.setattr(generation_pipeline, "installed_methods", lambda: methods)
    told = GenerationSettings("paints", "mc18", path="there", base="testbed:sd")
    assert pipeline_of(told.method, told.path, told.base)() == ("there", "testbed:sd")
    refused = {
        "embeds draws no pictures; there are base, paints": {"method": "embeds"},
        "give --path: what `paints export` wrote": {"path": None},
        "--method base takes --base": {"method": "base", "path": None, "base": None},
    }
    for words, others in refused.items():
        with pytest.raises(ValueError, match=words):
            wrong = dataclasses.replace(told, **others)
            pipeline_of(wrong.method, wrong.path, wrong.base)


def test_pictures_of_other_weights_in_the_same_folder_are_noticed(tmp_path):
    for place, kind in (("a", ""), ("b", "kind:")):
        (tmp_path / place / "de").mkdir(parents=True)
        weights = tmp_path / place / "de" / "model.safetensors"
        told = GenerationSettings("pea", "mc18", path=f"{kind}{tmp_path / place}")
        weights.write_bytes(b"1")
        first = made_with(told)["path"]
        weights.write_bytes(b"2")
        assert len(first) == 64 and made_with(told)["path"] != first
    assert made_with(GenerationSettings("pea", "mc18", path="org/hub"))["path"] == "org/hub"
