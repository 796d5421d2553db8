"""Pictures on disk: what a run that was stopped goes on from, and what it refuses."""

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from crosslingual_benchmarks.generation.pictures import Request, Sampling, draw_pictures

SAMPLING = Sampling(num_inference_steps=2, guidance_scale=3.0, resolution=64, seed=0)
Draw = Callable[[str, int], np.ndarray]


class Painter:
    """Called as a diffusers pipeline is; what it draws is known.

    Attributes:
        calls: the prompts and noise seeds of each call.
    """

    def __init__(self, draw):
        self.draw, self.calls = draw, []

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
