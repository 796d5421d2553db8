"""The picture world: what a scene is, how scenes are split, and how they are drawn."""

import functools
import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import (
    INVERSE,
    RESOLUTION,
    SPLITS,
    Scene,
    Thing,
    all_scenes,
    all_things,
    layout,
    motif_scenes,
    render,
    sample_scenes,
    split_of,
)

STAR, RING = Thing("star", "red", "big"), Thing("ring", "blue", "small")


@functools.cache
def members() -> dict[str, set[str]]:
    """The ids of every split's scenes."""
    split = {name: set() for name in SPLITS}
    for scene in all_scenes():
        split[split_of(scene)].add(scene.scene_id)
    return split


def pairs(count: int) -> list[Scene]:
    """Random scenes of two things."""
    return sample_scenes("train", count, seed=5, singles=0.0)


def picture_of(scene: Scene, seed: int) -> Image.Image:
    return render(scene, np.random.default_rng(seed))


def ink(picture: Image.Image) -> np.ndarray:
    """Where a picture differs from the paper at all."""
    return np.asarray(picture).min(axis=2) < 255


def test_every_scene_is_listed_once() -> None:
    assert len(all_things()) == 128
    assert len(all_scenes()) == 32_640
    assert sum(map(len, members().values())) == 32_640


def test_splits_are_disjoint_and_have_their_shares() -> None:
    assert not members()["train"] & members()["test"]
    assert not members()["train"] & members()["val"]
    assert not members()["val"] & members()["test"]
    for split, share in SPLITS.items():
        assert len(members()[split]) / 32_640 == pytest.approx(share, abs=0.006)


def test_a_split_goes_by_what_a_scene_shows_and_not_by_how_it_is_said() -> None:
    for scene in pairs(200) + sample_scenes("test", 100, seed=2, singles=0.2):
        assert split_of(scene.mirrored) == split_of(scene)
        assert scene.mirrored.scene_id == scene.scene_id
        assert scene.mirrored.mirrored == scene
        assert scene.canonical == scene.mirrored.canonical


def test_a_split_is_fixed_for_good() -> None:
    # The embedded models are trained on one split and measured on another: it may never change.
    listed = "\n".join(sorted(members()["test"])).encode()
    assert len(members()["test"]) == 2295
    assert hashlib.sha256(listed).hexdigest().startswith("08088cfd6865b230")
    said = Scene(STAR, "below", RING)
    assert said.scene_id == "small-blue-ring_above_big-red-star"
    assert Scene(STAR).scene_id == "big-red-star"


def test_other_scenes_have_other_ids() -> None:
    said = [Scene(a, relation, b) for a, b in ((STAR, RING), (RING, STAR)) for relation in INVERSE]
    assert len({scene.scene_id for scene in said}) == 4
    assert len({scene.scene_id for scene in [*said, Scene(STAR), Scene(RING)]}) == 6


@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_holds_scenes_of_its_split_alone(split: str) -> None:
    drawn = sample_scenes(split, 200, seed=1)
    assert {split_of(scene) for scene in drawn} == {split}
    assert drawn == sample_scenes(split, 200, seed=1) != sample_scenes(split, 200, seed=2)
    said = Counter(scene.relation for scene in drawn)
    assert said[None] / 200 == pytest.approx(0.4, abs=0.1)
    assert min(said[relation] for relation in INVERSE) >= 10


def test_a_picture_is_settled_by_the_scene_and_the_seed() -> None:
    scene = Scene(STAR, "left_of", RING)
    assert picture_of(scene, 3).tobytes() == picture_of(scene, 3).tobytes()
    assert picture_of(scene, 3).tobytes() == picture_of(scene.mirrored, 3).tobytes()
    assert picture_of(scene, 3).tobytes() != picture_of(scene, 4).tobytes()
    assert (picture_of(scene, 3).size, picture_of(scene, 3).mode) == (
        (RESOLUTION, RESOLUTION),
        "RGB",
    )


def test_things_never_touch_one_another_or_the_edge() -> None:
    for seed, scene in enumerate(pairs(400) + sample_scenes("train", 60, seed=6, singles=1.0)):
        drawn = ink(picture_of(scene, seed))
        assert ndimage.label(drawn, structure=np.ones((3, 3)))[1] == 1 + (
            scene.second is not None
        ), scene
        assert not (drawn[[0, -1]].any() or drawn[:, [0, -1]].any()), scene


def test_motifs_stay_inside_the_picture() -> None:
    for seed, scene in enumerate(motif_scenes() * 4):
        drawn = ink(picture_of(scene, seed))
        assert drawn.any() and not (drawn[[0, -1]].any() or drawn[:, [0, -1]].any()), scene


def test_the_relation_is_that_of_the_first_thing_to_the_second() -> None:
    rng = np.random.default_rng(0)
    for relation, ahead in {
        "left_of": (0, 1),
        "right_of": (0, -1),
        "above": (1, 1),
        "below": (1, -1),
    }.items():
        axis, sign = ahead
        places = {thing: (x, y) for thing, x, y, _ in layout(Scene(STAR, relation, RING), rng)}
        assert sign * (places[RING][axis] - places[STAR][axis]) > 30


def test_every_language_has_its_motif() -> None:
    assert sorted(motif.language for motif in MOTIFS.values()) == sorted(LANGUAGES)
    assert {scene.motif for scene in motif_scenes()} == set(MOTIFS)
    assert Scene(STAR).motif is None


def test_what_is_no_scene_is_refused() -> None:
    for parts in (("star", None, "big"), ("star", "brown", "big"), ("star", "red", "huge")):
        with pytest.raises(ValueError, match="no such thing in the picture world"):
            Thing(*parts)
    with pytest.raises(ValueError, match="no such thing"):
        Thing("pizza", "red", "big")
    for relation, second in ((None, RING), ("left_of", None), ("beside", RING)):
        with pytest.raises(ValueError, match="a relation joins two things"):
            Scene(STAR, relation, second)
    with pytest.raises(ValueError, match="no split 'dev'; there are train, val, test"):
        sample_scenes("dev", 1, seed=0)
