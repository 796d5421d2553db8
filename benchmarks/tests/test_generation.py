"""Generation: the scores of painters known to draw right or wrong; pictures on disk that a run
resumes from; settings, their refusals and defaults.
"""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from crosslingual.cli.settings import parse_settings
from crosslingual.method import Method
from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.generation import pictures as generation_pictures
from crosslingual_benchmarks.generation import pipeline as generation_pipeline
from crosslingual_benchmarks.generation.pictures import Request, Sampling, draw_pictures
from crosslingual_benchmarks.generation.pipeline import (
    made_with,
    pipeline_of,
    prepare_pipeline,
)
from crosslingual_benchmarks.generation.prompts import Prompt, PromptSet
from crosslingual_benchmarks.generation.settings import (
    PROG,
    GenerationSettings,
    arm_of,
    load_prompt_set,
    with_defaults,
)
from crosslingual_benchmarks.generation.verb import evaluate_generation, yardstick_of
from crosslingual_benchmarks.metrics.text_accuracy import hard_negatives
from crosslingual_benchmarks.results import command_of, read_results
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.world import Scene, Thing, render, sample_scenes

Draw = Callable[[str, int], np.ndarray]


class Painter:
    """Called as a diffusers pipeline is; what it draws is known.

    Attributes:
        calls: the prompts and noise seeds of each call.
    """

    def __init__(self, draw):
        self.draw, self.calls = draw, []
        self.components = {"unet": torch.nn.Linear(2, 3), "tokenizer": None}

    def to(self, *places):
        return self

    def __call__(self, prompts, generator, **options):
        assert options["output_type"] == "np" and options["height"] == options["width"] == 64
        seeds = [each.initial_seed() for each in generator]
        self.calls.append((prompts, seeds))
        drawn = [self.draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return SimpleNamespace(images=np.stack(drawn))

    @property
    def seed_of(self):
        return {p: s for prompts, seeds in self.calls for p, s in zip(prompts, seeds, strict=True)}


def noise(prompt, seed):
    return np.random.default_rng(seed).random((64, 64, 3), dtype=np.float32)


def blank(prompt, seed):
    return np.ones((64, 64, 3), np.float32)


def nan(prompt, seed):
    return np.full((64, 64, 3), np.nan, np.float32)


def truth(prompt_set):
    """Draws what each prompt says, in whatever language."""
    told = prompt_set.prompts
    return painted({text: p.scene for p in told for text in (*p.prompts.values(), p.english)})


def painted(scenes):
    """Draws a scene a prompt."""

    def draw(prompt, seed):
        picture = render(scenes[prompt], np.random.default_rng(seed))
        return np.asarray(picture, dtype=np.float32) / 255

    return draw


def settings_of(tmp_path, **others):
    told = {"method": "painter", "dataset": "testbed", "languages": ["de", "ja"]}
    told |= {"num_prompts": 6, "num_motif_prompts": 2, "num_references": 20, "num_bootstrap": 50}
    told |= {"num_fid_bootstrap": 5, "scheduler": "base", "output_dir": str(tmp_path / "out")}
    return GenerationSettings(**{**told, **others})


@pytest.fixture(scope="module")
def yardstick():
    return yardstick_of(*with_prompts(settings_of(Path("."))))


def with_prompts(settings):
    return settings, load_prompt_set(with_defaults(settings))


@pytest.mark.parametrize(("painter", "share"), [("truth", 1.0), ("blank", 0.0)])
def test_true_pictures_score_one_and_blank_ones_zero(tmp_path, yardstick, painter, share):
    settings, prompt_set = with_prompts(settings_of(tmp_path))
    made = Painter(truth(prompt_set) if painter == "truth" else blank)
    results = evaluate_generation(lambda: made, settings, yardstick=yardstick)
    assert [result["language"] for result in results] == ["de", "ja"]
    for result in results:
        assert result["metrics"]["text_accuracy"] == share
        assert result["metrics"]["culture_score"] == share
        assert result["interval95"]["text_accuracy"] == [share, share]
        assert set(result["interval95"]) == set(result["metrics"])
        assert result["n_images"] == 8 and result["num_invalid"] == 0
        assert result["total_parameters"] == 9
    assert read_results([tmp_path / "out"]) == json.loads(json.dumps(results))


def test_true_pictures_are_nearer_to_the_references_and_captions_than_blank_ones(
    tmp_path, yardstick
):
    settings, prompt_set = with_prompts(settings_of(tmp_path, languages=["de"]))
    found = {}
    for name, drawing in {"true": truth(prompt_set), "blank": blank}.items():
        told = dataclasses.replace(settings, arm=name)
        (line,) = evaluate_generation(lambda d=drawing: Painter(d), told, yardstick=yardstick)
        found[name] = line["metrics"]
    assert found["true"]["fid"] < found["blank"]["fid"]
    assert found["true"]["kid"] < found["blank"]["kid"]
    assert found["true"]["clip_score"] > found["blank"]["clip_score"] + 10


def test_fid_of_pictures_against_themselves_is_zero(tmp_path):
    settings = settings_of(tmp_path, languages=["de"], num_motif_prompts=0)
    told = dataclasses.replace(settings, use_references=False)
    (line,) = evaluate_generation(lambda: Painter(noise), told)
    assert "fid" not in line["metrics"] and "extractor" not in line["protocol"]
    own = str(tmp_path / "out" / "painter-testbed" / "de" / "general")
    told = dataclasses.replace(settings, reference_dir=own)
    (line,) = evaluate_generation(lambda: None, told)
    assert line["metrics"]["fid"] == pytest.approx(0, abs=1e-6)
    assert line["num_kept"] == line["protocol"]["num_references"] == 6


def test_pictures_that_are_not_finite_are_counted_and_never_right(tmp_path, yardstick):
    # black as a broken picture is shown, which the judge would read as this very scene
    scene = Scene(Thing("square", "black", "big"))
    prompts = [Prompt(f"p{i}", {"de": "ein Quadrat"}, "a square", scene=scene) for i in range(2)]
    settings = settings_of(tmp_path, languages=["de"])
    made = Painter(nan)
    told = PromptSet("squares", prompts, {})
    (line,) = evaluate_generation(lambda: made, settings, told, yardstick)
    assert line["num_invalid"] == line["n_images"] == 2
    assert line["metrics"]["text_accuracy"] == 0.0
    assert any(warning.startswith("2 of 2 pictures are not finite") for warning in line["warnings"])
    (again,) = evaluate_generation(lambda: None, settings, told, yardstick)
    assert again["num_invalid"] == again["num_kept"] == 2


def test_every_language_s_general_prompts_have_the_same_noise(tmp_path, yardstick):
    settings, prompt_set = with_prompts(settings_of(tmp_path))
    made = Painter(truth(prompt_set))
    evaluate_generation(lambda: made, settings, yardstick=yardstick)
    general = [p for p in prompt_set.prompts if p.culture is None]
    seeds = [{n: made.seed_of[p.prompts[n]] for n in ("de", "ja")} for p in general]
    assert all(seed["de"] == seed["ja"] for seed in seeds)


def test_prompts_in_two_languages_are_judged_pair_by_pair_without_motifs_and_fid(tmp_path):
    settings = settings_of(tmp_path, num_prompts=3, second_languages=["de"])
    prompt_set = load_prompt_set(with_defaults(settings))
    scenes = {t: p.scene for p in prompt_set.prompts for n, t in p.prompts.items() if n != "ja+de"}
    wrong = Scene(Thing("star", "red", "big"))
    scenes |= {p.prompts["ja+de"]: wrong for p in prompt_set.prompts}
    results = evaluate_generation(lambda: Painter(painted(scenes)), settings)
    found = {line["language"]: line["metrics"]["text_accuracy"] for line in results}
    assert found == {"de": 1.0, "ja": 1.0, "de+ja": 1.0, "ja+de": 0.0}
    assert all(set(line["metrics"]) == {"text_accuracy", "clip_score"} for line in results)
    assert {line["task"] for line in results} == {"code_mixing"}
    assert (tmp_path / "out" / "painter-testbed-mixed" / "ja+de" / "general").is_dir()


def test_the_upper_bound_reads_english_and_draws_the_general_prompts_once(tmp_path, yardstick):
    settings, prompt_set = with_prompts(settings_of(tmp_path, prompt_language="english"))
    made = Painter(truth(prompt_set))
    german, japanese = evaluate_generation(lambda: made, settings, yardstick=yardstick)
    read = [prompt for prompts, _ in made.calls for prompt in prompts]
    assert sorted(read) == sorted(p.english for p in prompt_set.prompts)
    assert len(prompt_set.prompts) == 6 + 2 * 2
    assert german["num_kept"] == 0 and japanese["num_kept"] == 6
    assert german["metrics"]["fid"] == japanese["metrics"]["fid"]
    assert german["model"] == "painter_on_english" and german["prompt_language"] == "english"


CULTURE = {
    "de": ("ein Stern", "a big red star"),
    "ja": ("指輪", "a big blue ring"),
    "uk": ("хрест", "a big black cross"),
}
CULTURE_SCENES = {
    "ein Stern": Scene(Thing("star", "red", "big")),
    "指輪": Scene(Thing("ring", "blue", "big")),
    "хрест": Scene(Thing("cross", "black", "big")),
}


@pytest.mark.parametrize(
    ("order", "shares"),
    [([0, 1, 2], [1.0, 1.0, 1.0]), ([1, 2, 0], [0.0, 0.0, 0.0]), ([0, 0, 0], [1.0, 0.0, 0.0])],
    ids=["right", "mixed up", "always the same"],
)
def test_a_clip_chooses_a_culture_s_picture_among_other_cultures(tmp_path, order, shares):
    path = tmp_path / "mine.jsonl"
    lines = [
        {"id": n, "culture": n, "aspect": "food", "prompts": {n: text}, "english": english}
        for n, (text, english) in CULTURE.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = settings_of(
        tmp_path, dataset="prompts", prompts=str(path), languages=[], num_prompts=None
    )
    settings.resolution, settings.clip = 64, "testbed:clip"
    scenes = [*CULTURE_SCENES.values()]
    drawn = [scenes[place] for place in order]
    painter = Painter(painted(dict(zip(CULTURE_SCENES, drawn, strict=True))))
    results = evaluate_generation(lambda: painter, settings)
    assert [result["language"] for result in results] == ["de", "ja", "uk"]
    assert [result["metrics"]["culture_score"] for result in results] == shares
    for result in results:
        assert result["dataset"] == "mine"
        assert result["chance"] == {"culture_score": pytest.approx(1 / 3)}
        assert set(result["metrics"]) == {"culture_score", "clip_score"}
    sheet = tmp_path / "out" / "painter-mine"
    assert (sheet / "motifs.png").is_file() and not (sheet / "grid.png").exists()


def test_mg18_is_scored_against_its_photographs_and_by_a_choice_among_captions(tmp_path):
    (tmp_path / "images").mkdir()
    scenes = sample_scenes("test", 5, 1)
    entries = []
    for number, scene in enumerate(scenes):
        picture = render(scene, np.random.default_rng(number))
        picture.resize((90, 70)).save(tmp_path / "images" / f"{number}.jpg")
        told = {name: {"caption": [caption(scene, name)]} for name in ("de", "en")}
        entries.append({"image/key": str(number), "image/locale": "de", **told})
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (tmp_path / "captions.jsonl").write_text(lines, encoding="utf-8")
    settings = settings_of(tmp_path, dataset="mg18", root=str(tmp_path), languages=["de"])
    settings.num_prompts, settings.resolution = 4, 64
    settings.clip = settings.extractor = "testbed:clip"
    painter = Painter(painted({caption(scene, "de"): scene for scene in scenes}))
    (line,) = evaluate_generation(lambda: painter, settings)
    assert line["metrics"]["text_accuracy"] == 1.0 and "fid" in line["metrics"]
    assert line["chance"] == {"text_accuracy": pytest.approx(1 / 4)}
    told = {"num_references": 4, "num_prompts": 4, "captions": "first", "sample_seed": 0}
    assert told.items() <= line["protocol"].items() and line["dataset"] == "mg18"


def test_hard_negatives_are_the_nearest_other_captions(yardstick):
    star, near, far = "a big red star", "a small red star", "a small blue ring below a big moon"
    assert hard_negatives(yardstick.clip, [star, near, far, star], 1) == [
        [near],
        [star],
        hard_negatives(yardstick.clip, [star, near, far], 1)[2],
        [near],
    ]
    assert hard_negatives(yardstick.clip, [star, star], 3) == [[], []]


def test_the_sheet_shows_rows_of_languages(tmp_path, yardstick):
    settings, prompt_set = with_prompts(settings_of(tmp_path, num_shown=3))
    evaluate_generation(lambda: Painter(truth(prompt_set)), settings, yardstick=yardstick)
    with Image.open(tmp_path / "out" / "painter-testbed" / "grid.png") as grid:
        assert grid.width > 3 * 128 and grid.height > 2 * 128
    lines = read_results([tmp_path / "out"])
    assert [len(line["samples"]) for line in lines] == [3 + 2] * 2
    assert lines[1]["samples"][0] == {
        "prompt": prompt_set.prompts[0].prompts["ja"],
        "is_right": True,
    }


def test_the_command_draws_with_the_testbed_s_base_and_goes_on(tmp_path, capsys):
    words = "--method base --base testbed:sd --dataset testbed --languages en --num_prompts 2"
    words += " --num_motif_prompts 1 --num_inference_steps 6 --num_references 10"
    words += " --num_fid_bootstrap 0 --output_dir"
    argv = ["generation", *words.split(), str(tmp_path)]
    assert main(argv) == 0
    assert "as_is on testbed, testbed:sd" in capsys.readouterr().out
    assert main(argv) == 0
    first, second = (
        json.loads(line) for line in (tmp_path / "generation.json").read_text().splitlines()
    )
    assert first["num_kept"] == 0 and second["num_kept"] == 3
    assert first["metrics"] == second["metrics"]
    assert first["metrics"]["text_accuracy"] > 0 and first["protocol"]["scheduler"] == "ddim"
    assert first["interval95"].keys() == {"clip_score", "text_accuracy", "culture_score"}
    assert main([*argv, "--guidance_scale", "9"]) == 2
    line = capsys.readouterr().err
    assert "made with guidance_scale 3.0, not 9.0" in line and line.count("\n") == 1


SAMPLING = Sampling(num_inference_steps=2, guidance_scale=3.0, resolution=64, seed=0)


def requests(count):
    return [Request(number, f"id-{number}", f"prompt {number}") for number in range(count)]


def draw(folder, painter, count=5, **others):
    told = {"made_with": {"path": "abc"}, "batch_size": 2, "sampling": SAMPLING, **others}
    return draw_pictures(folder, requests(count), lambda: painter, **told)


def test_pictures_lie_in_geneval_s_layout_with_their_prompts(tmp_path):
    drawn = draw(tmp_path / "p", Painter(noise), 2)
    place = tmp_path / "p" / "00001"
    assert [path.name for path in sorted(place.rglob("*"))] == [
        "metadata.jsonl",
        "samples",
        "0000.png",
    ]
    metadata = json.loads((place / "metadata.jsonl").read_text())
    assert metadata["prompt"] == "prompt 1" and metadata["is_finite"] is True
    expected = (noise("", 1) * 255).round().astype(np.uint8)
    assert np.array_equal(drawn[1].open(), expected)


def test_noise_depends_on_seed_and_place_alone(tmp_path):
    painters = [Painter(noise) for _ in range(3)]
    draw(tmp_path / "a", painters[0], batch_size=2)
    draw(tmp_path / "b", painters[1], batch_size=5)
    other = dataclasses.replace(SAMPLING, seed=1)
    draw(tmp_path / "c", painters[2], sampling=other)
    assert painters[0].seed_of == painters[1].seed_of
    assert len({*painters[0].seed_of.values(), *painters[2].seed_of.values()}) == 10


def test_a_resumed_run_draws_only_what_is_missing_or_broken_and_alike(tmp_path):
    whole = draw(tmp_path / "p", Painter(noise))
    bytes_of = [each.path.read_bytes() for each in whole]
    whole[1].path.unlink()
    whole[2].path.write_bytes(bytes_of[2][: len(bytes_of[2]) // 2])
    (whole[4].path.parents[1] / "metadata.jsonl").unlink()
    painter = Painter(noise)
    again = draw(tmp_path / "p", painter)
    assert [*painter.seed_of] == ["prompt 1", "prompt 2", "prompt 4"]
    assert [each.is_kept for each in again] == [True, False, False, True, False]
    assert [each.path.read_bytes() for each in again] == bytes_of


def test_a_finished_folder_loads_no_pipeline(tmp_path):
    draw(tmp_path / "p", Painter(noise))
    none = None
    assert all(each.is_kept for each in draw(tmp_path / "p", none))


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (
            {"sampling": dataclasses.replace(SAMPLING, guidance_scale=9.0)},
            "guidance_scale 3.0, not",
        ),
        ({"made_with": {"path": "xyz"}}, "path 'abc', not 'xyz'"),
        ({"made_with": {"path": "abc", "more": 1}}, "more None, not 1"),
    ],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, others, words):
    draw(tmp_path / "p", Painter(noise))
    with pytest.raises(ValueError, match=f"made with {words}.*another --output_dir"):
        draw(tmp_path / "p", Painter(noise), **others)


def test_a_folder_of_other_prompts_or_of_unknown_settings_is_refused(tmp_path):
    draw(tmp_path / "p", Painter(noise))
    changed = [Request(0, "id-0", "another prompt")]
    with pytest.raises(ValueError, match="picture of 'prompt 0', not of 'another prompt'"):
        draw_pictures(tmp_path / "p", changed, lambda: None, SAMPLING, made_with={"path": "abc"})
    (tmp_path / "p" / "settings.json").unlink()
    with pytest.raises(ValueError, match="holds files but no settings.json"):
        draw(tmp_path / "p", Painter(noise))


def test_a_pipeline_that_draws_another_size_is_refused(tmp_path):
    small = Painter(lambda prompt, seed: np.ones((32, 32, 3), np.float32))
    with pytest.raises(ValueError, match="drew .32, 32, 3., not squares of 64 pixels"):
        draw(tmp_path / "p", small)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"dataset": "mg19"}, "no data set 'mg19'; did you mean 'mg18'"),
        ({"dataset": "mg18", "num_prompts": None}, "data set mg18 needs --root"),
        ({"dataset": "prompts", "num_prompts": None}, "data set prompts needs --prompts"),
        ({"dataset": "mc18"}, "data set mc18 takes no --num_prompts"),
        ({"root": "x"}, "data set testbed takes no --root"),
        (
            {"dataset": "mc18", "num_prompts": None, "prompt_split": "val"},
            "data set mc18 has no splits: leave out --prompt_split",
        ),
        (
            {"second_languages": ["de"], "prompt_language": "english"},
            "leave out --second_languages for --dataset testbed --prompt_language english",
        ),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metadata.jsonl is broken"),
        ("[]", "metadata.jsonl is broken"),
        ('{"prompt": "prompt 1"}', "metadata.jsonl is broken .*is_finite"),
        ('{"prompt": 3, "is_finite": true}', "metadata.jsonl is broken .*prompt"),
    ],
)
def test_metadata_of_wrong_types_is_an_error_with_the_file_s_name(text, message, tmp_path):
    draw(tmp_path / "p", Painter(noise), 2)
    (tmp_path / "p" / "00001" / "metadata.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "p", Painter(noise), 2)
    (tmp_path / "p" / "settings.json").write_text("[" * 5000)
    with pytest.raises(ValueError, match="settings.json is broken"):
        draw(tmp_path / "p", Painter(noise), 2)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_picture_never_stands_under_the_metadata_of_another(tmp_path, monkeypatch):
    (first, *_) = draw(tmp_path / "p", Painter(noise), 1)
    first.path.write_bytes(b"broken")

    def killed(path, text):
        raise Killed

    monkeypatch.setattr(generation_pictures, "write_text", killed)
    with pytest.raises(Killed):
        draw(tmp_path / "p", Painter(blank), 1)
    assert not (first.path.parents[1] / "metadata.jsonl").exists()
    monkeypatch.undo()
    (again,) = draw(tmp_path / "p", Painter(noise), 1)
    assert not again.is_kept and not list(tmp_path.rglob(".0000.png*"))


def test_prompts_that_are_cut_are_counted_also_where_their_pictures_are_kept(tmp_path, yardstick):
    clip = yardstick.clip
    prompts = [Prompt(f"p{i}", {"de": text}, "a star") for i, text in enumerate(("a", "a " * 90))]
    settings = settings_of(tmp_path, languages=["de"], use_references=False)

    class Reader(Painter):
        def __init__(self):
            super().__init__(blank)
            self.tokenizer = self.components["tokenizer"] = clip.tokenizer

        def __call__(self, prompts, **options):
            self.tokenizer(prompts, truncation=True, max_length=clip.max_length)
            return super().__call__(prompts, **options)

    told = PromptSet("long", prompts, {})
    for _ in range(2):
        (line,) = evaluate_generation(Reader, settings, told, yardstick)
        assert line["num_cut_prompts"] == 1
        assert "1 of 2 prompts are longer than the text encoder reads" in line["warnings"][0]


def test_pictures_are_not_drawn_into_a_folder_of_something_else(tmp_path, yardstick):
    mine = tmp_path / "out" / "painter-testbed" / "motifs.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    settings = settings_of(tmp_path, languages=["de"])
    with pytest.raises(ValueError, match="holds motifs.png, which this program did not write"):
        evaluate_generation(lambda: None, settings, yardstick=yardstick)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [
        "painter-testbed",
        "motifs.png",
    ]
    told = dataclasses.replace(settings, arm="../../escaped")
    with pytest.raises(ValueError, match="cannot name a folder"):
        evaluate_generation(lambda: None, told, yardstick=yardstick)


def test_a_sheet_of_prompts_that_are_no_longer_asked_for_is_removed(tmp_path, yardstick):
    settings, prompt_set = with_prompts(settings_of(tmp_path, languages=["de"]))
    evaluate_generation(lambda: Painter(truth(prompt_set)), settings, yardstick=yardstick)
    sheet = tmp_path / "out" / "painter-testbed" / "motifs.png"
    assert sheet.is_file()
    settings.num_motif_prompts = 0
    (line,) = evaluate_generation(lambda: None, settings, yardstick=yardstick)
    assert not sheet.exists() and line["total_parameters"] == 9


def test_a_pipeline_of_flow_matching_is_not_sampled_by_ddim():
    pipe = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler())
    settings = GenerationSettings(method="base", dataset="testbed")
    with pytest.raises(ValueError, match="flow matching: give --scheduler base"):
        prepare_pipeline(pipe, settings)
