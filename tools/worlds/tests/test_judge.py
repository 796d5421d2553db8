"""The judge: reads every true picture, and accepts no picture that shows something else."""

import functools
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from crosslingual_worlds.drawn.judge import read_motif, read_scene, shows
from crosslingual_worlds.drawn.world import (
    BACKGROUND,
    COLORS,
    INVERSE,
    RESOLUTION,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    all_things,
    motif_scenes,
    render,
    sample_scenes,
)

Pictured = list[tuple[Scene, Image.Image]]


def draw(scenes: list[Scene]) -> Pictured:
    """Every scene with a picture of it."""
    return [(scene, render(scene, np.random.default_rng((9, k)))) for k, scene in enumerate(scenes)]


@functools.cache
def held_out() -> Pictured:
    """600 scenes of the test split."""
    return draw(sample_scenes("test", 600, seed=3))


@functools.cache
def held_out_pairs() -> Pictured:
    """80 of them that have two things."""
    return [(scene, picture) for scene, picture in held_out() if scene.second][:80]


def accuracy(pictured: Pictured) -> float:
    return float(np.mean([shows(picture, scene) for scene, picture in pictured]))


def other(value: str, values: tuple[str, ...]) -> str:
    """The next of a list of values after one of them, around its end."""
    return values[(values.index(value) + 1) % len(values)]


def jpeg(picture: Image.Image) -> Image.Image:
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=75)
    return Image.open(stored)


def blur(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(0.8))


def test_true_pictures_of_held_out_scenes_are_read() -> None:
    assert len(held_out()) == 600
    assert accuracy(held_out()) >= 0.995


def test_every_motif_is_read_in_both_sizes() -> None:
    for scene, picture in draw(motif_scenes() * 2):
        assert read_motif(picture) == scene.motif
        assert shows(picture, scene)


def test_a_motif_counts_in_either_size() -> None:
    pizza, picture = draw([Scene(Thing("pizza", None, "big"))])[0]
    assert shows(picture, Scene(replace(pizza.first, size="small")))
    assert not shows(picture, Scene(Thing("nazar", None, "big")))


def test_a_scene_is_accepted_said_the_other_way_round() -> None:
    for scene, picture in held_out_pairs():
        assert shows(picture, scene.mirrored)


@pytest.mark.parametrize("blemish", [jpeg, blur])
def test_a_light_blemish_is_forgiven(blemish) -> None:
    blemished = [(scene, blemish(picture)) for scene, picture in held_out()[:120]]
    assert accuracy(blemished) >= 0.98
    motifs = [(scene, blemish(picture)) for scene, picture in draw(motif_scenes())]
    assert accuracy(motifs) >= 0.98


WRONG = {
    "colour": lambda s: replace(
        s, second=replace(s.second, color=other(s.second.color, tuple(COLORS)))
    ),
    "shape": lambda s: replace(s, second=replace(s.second, shape=other(s.second.shape, SHAPES))),
    "size": lambda s: replace(s, second=replace(s.second, size=other(s.second.size, tuple(SIZES)))),
    "relation": lambda s: replace(s, relation=INVERSE[s.relation]),
    "axis": lambda s: replace(s, relation={"left_of": "above", "above": "left_of"}[s.relation]),
    "missing thing": lambda s: Scene(s.first),
    "other thing missing": lambda s: Scene(s.second),
    "swapped colours": lambda s: replace(
        s,
        first=replace(s.first, color=s.second.color),
        second=replace(s.second, color=s.first.color),
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_picture_of_another_scene_is_not_accepted(fault: str) -> None:
    wanted = [scene.canonical for scene, _ in held_out_pairs()]
    drawn = [WRONG[fault](scene) for scene in wanted]
    asked = [(scene, picture) for scene, (_, picture) in zip(wanted, draw(drawn), strict=True)]
    asked = [
        pair for pair, wrong in zip(asked, drawn, strict=True) if wrong.scene_id != pair[0].scene_id
    ]
    assert len(asked) > 60
    assert accuracy(asked) == 0.0


def test_a_third_thing_is_not_accepted() -> None:
    for scene, picture in draw(
        [Scene(Thing("star", "red", "small"), "left_of", Thing("ring", "blue", "small"))]
    ):
        crowded = picture.copy()
        crowded.paste((24, 150, 60), (28, 2, 36, 10))
        assert read_scene(crowded).reason == "3 things"
        assert not shows(crowded, scene)


def test_blank_and_noisy_pictures_are_unreadable() -> None:
    blank = Image.new("RGB", (RESOLUTION, RESOLUTION), BACKGROUND)
    assert read_scene(blank).scene is None and read_scene(blank).reason == "0 things"
    assert read_motif(blank) is None
    noise = np.random.default_rng(1).integers(0, 256, (RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    for noisy in (Image.fromarray(noise), Image.fromarray(noise).resize((8, 8)).resize(blank.size)):
        assert read_scene(noisy).scene is None and read_scene(noisy).reason
        assert read_motif(noisy) is None


def test_a_grey_shape_and_a_full_picture_are_unreadable() -> None:
    scene, picture = draw([Scene(Thing("square", "black", "big"))])[0]
    grey = Image.fromarray(np.where(np.asarray(picture) < 255, 140, 255).astype(np.uint8))
    assert read_scene(grey).reason == "a colour that is not in the palette"
    assert not shows(Image.new("RGB", (RESOLUTION, RESOLUTION), COLORS["red"]), scene)


def test_a_plain_shape_is_no_motif() -> None:
    # An orange circle, which a model that knows no pizza may draw for one, lies close to it.
    plain = [Scene(thing) for thing in all_things()]
    for blemish in (lambda picture: picture, blur):
        found = {scene: read_motif(blemish(picture)) for scene, picture in draw(plain)}
        assert set(found.values()) == {None}, found
    assert {read_motif(picture) for _, picture in held_out_pairs()[:40]} == {None}


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"64 x 64 pixels, not \(32, 32\)"):
        read_scene(Image.new("RGB", (32, 32)))
