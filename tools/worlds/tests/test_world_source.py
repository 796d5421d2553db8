"""The picture world as a source: its pictures show what its captions and scenes say."""

import io

import pytest
from PIL import Image

from crosslingual.data.sources import find_sources
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.source import scene_of
from crosslingual_worlds.drawn.world import split_of

world = find_sources()["world"]


def test_scenes_come_with_captions_pictures_and_what_rebuilds_them() -> None:
    records = list(world(languages=["en", "de"], num_samples=12, split="test", seed=3))
    for record in records:
        scene = scene_of(record.extra)
        assert split_of(scene) == "test"
        assert scene.scene_id == record.extra["scene"]
        assert record.captions == {name: [caption(scene, name)] for name in ("en", "de")}
        assert (record.parallel, record.culture) == (True, None)
        picture = Image.open(io.BytesIO(record.image))
        assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert len({record.key for record in records}) == 12


def test_the_same_arguments_give_the_same_records() -> None:
    options = dict(languages=["fr"], num_samples=2, num_motif_samples=1, num_captions=3)
    first = list(world(**options))
    assert first == list(world(**options))
    assert 1 <= len(first[0].captions["fr"]) <= 3
    assert first[0].image != next(world(**options | {"seed": 1})).image


def test_motifs_are_native_to_their_language() -> None:
    records = list(world(languages=["en", "ja", "zh"], num_samples=0, num_motif_samples=12))
    for record in records:
        assert list(record.captions) == [record.culture]
        assert not record.parallel
    assert {record.culture for record in records} == {"en", "ja", "zh"}
    assert len({record.image for record in records}) == 12


def test_an_unknown_language_or_split_is_named() -> None:
    with pytest.raises(ValueError, match="no lexicon for 'xx'"):
        next(world(languages=["xx"], num_samples=0))
    with pytest.raises(ValueError, match="no split 'dev'"):
        next(world(languages=["en"], split="dev"))


def test_distinct_scenes_come_once_and_without_pictures_text_alone() -> None:
    records = list(world(languages=["en", "de"], num_samples=600, distinct=True, pictures=False))
    assert len({record.extra["scene"] for record in records}) == 600
    assert all(record.image is None and record.parallel for record in records)
    mixed = list(world(languages=["en"], num_samples=600, pictures=False))
    assert len({record.extra["scene"] for record in mixed}) < 600
    with pytest.raises(ValueError, match="distinct scenes, not 100000"):
        next(world(languages=["en"], num_samples=100_000, distinct=True))
