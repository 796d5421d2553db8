"""Faults in shards: each is replaced, counted and said, and too many stop the run."""

import io
import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from crosslingual.data.tars import Shard
from crosslingual_worlds.testing.shards import (
    Members,
    open_loader,
    picture,
    sample,
    samples,
    take_keys,
    write_folder,
    write_tar,
)


def broken_pictures() -> dict[str, bytes]:
    """Pictures that cannot be used, by the reason that is reported."""
    noise = Image.effect_noise((64, 64), 90)
    png, jpeg = io.BytesIO(), io.BytesIO()
    noise.save(png, "PNG")
    noise.save(jpeg, "JPEG")
    return {
        "no JPEG, PNG, WEBP, GIF": b"<html>404</html>",
        "broken picture": png.getvalue()[: len(png.getvalue()) // 2],
        "truncated": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "oversized picture": picture(size=(301, 300)),
    }


@pytest.mark.parametrize("reason", list(broken_pictures()))
def test_a_bad_picture_is_replaced_by_the_next_sample_and_counted(
    tmp_path: Path, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its place goes to its successor in the order, on any number of ranks."""
    whole = write_folder(tmp_path / "whole", [20])
    damaged = write_folder(
        tmp_path / "damaged", [20], {7: sample("0007", broken_pictures()[reason])}
    )
    order = [key for batch in take_keys(open_loader(whole), 5) for key in batch]
    place = order.index("0007")
    expected = [*order[:place], order[(place + 1) % 20], *order[place + 1 :]]
    bounds = {"max_corrupt": 0.1, "max_pixels": 300 * 300}
    loader = open_loader(damaged, **bounds)
    assert [key for batch in take_keys(loader, 5) for key in batch] == expected
    assert loader.num_skipped == 1 and reason in loader.report()
    assert "00000.tar: 0007" in loader.report() and "skipped" in caplog.text
    ranks = [
        open_loader(damaged, **bounds, batch_size=2, rank=rank, world_size=2) for rank in range(2)
    ]
    steps = zip(*(take_keys(loader, 5) for loader in ranks), strict=True)
    assert [key for step in steps for part in step for key in part] == expected


def foreign_members() -> dict[str, Members]:
    """Members that belong to no sample."""
    return {
        "foreign member": [("README.md", b"x"), ("._0001.png", b"x"), ("LICENSE", b"x")],
        "path points outside": [
            ("../0001.png", b"x"),
            ("/etc/0.png", b"x"),
            ("a/../../b.txt", b""),
        ],
        "two members of one name": [("9.txt", b"x"), ("9.txt", b"y")],
    }


@pytest.mark.parametrize("reason", list(foreign_members()))
def test_a_foreign_member_is_passed_over_and_counted(tmp_path: Path, reason: str) -> None:
    """At the start of the tar, between a sample's members, at the end."""
    strange = foreign_members()[reason]
    members = samples(20)
    if "9.txt" in dict(strange):
        members += strange
    else:
        members = [strange[0], members[0], strange[1], *members[1:], strange[2]]
    write_tar(tmp_path / "0.tar", members)
    loader = open_loader(str(tmp_path), max_corrupt=0.2)
    assert {key for batch in take_keys(loader, 5) for key in batch} >= {
        f"{n:04d}" for n in range(20)
    }
    assert set(loader.faults.values()) == {reason}
    assert loader.num_skipped == (1 if "9.txt" in dict(strange) else 3)


def test_a_damaged_header_ends_a_shard_aloud(tmp_path: Path) -> None:
    """`tarfile` would end there without a word."""
    path = write_tar(tmp_path / "0.tar", samples(4))
    data = bytearray(path.read_bytes())
    at = Shard(str(path)).samples[2][1][0].offset - 512
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(data)
    shard = Shard(str(path))
    assert len(shard.samples) == 2 and shard.faults == {f"from byte {at} on": "damaged header"}
    loader = open_loader(str(tmp_path), batch_size=2)
    with pytest.raises(ValueError, match="damaged header"):
        next(loader.batches())


def test_samples_that_the_index_promises_and_the_tar_lacks_are_counted(tmp_path: Path) -> None:
    """A cut shard beside its `sizes.json` costs each sample that is gone."""
    folder = write_folder(tmp_path / "s", [20, 20])
    Path(folder, "sizes.json").write_text('{"00000.tar": 20, "00001.tar": 20}')
    first = Path(folder, "00000.tar")
    cut = Shard(str(first)).samples[15][1][0].offset
    first.write_bytes(first.read_bytes()[:cut])
    loader = open_loader(folder, max_corrupt=0.2)
    assert loader.num_samples == 40
    take_keys(loader, 10)
    gone = [reason for reason in loader.faults.values() if reason.startswith("gone")]
    assert len(gone) == 5 and loader.num_skipped == 6
    with pytest.raises(ValueError, match="more than max_corrupt = 0.01 allows"):
        take_keys(open_loader(folder), 10)


def test_samples_that_the_index_does_not_know_are_counted(tmp_path: Path) -> None:
    """Stale sizes are not followed in silence."""
    folder = write_folder(tmp_path / "s", [20])
    Path(folder, "sizes.json").write_text('{"00000.tar": 16}')
    with pytest.raises(ValueError, match=r"more than the index .* \(4\)"):
        take_keys(open_loader(folder), 1)


def test_nothing_usable_stops_at_once_with_the_names_found(tmp_path: Path) -> None:
    """All corrupt, no tar at all, or an empty tar: an error, never a loop."""
    folder = write_folder(tmp_path / "s", [20], {n: sample(f"{n:04d}", b"no") for n in range(20)})
    with pytest.raises(ValueError, match="none of the first 20 samples .* names found: json:capt"):
        open_loader(folder)
    Path(folder, "00000.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(ValueError, match="can be used; .*damaged header; names found: none"):
        open_loader(folder)
    write_tar(Path(folder, "00000.tar"), [])
    with pytest.raises(ValueError, match="holds no samples"):
        open_loader(folder)
    Path(folder, "00000.tar").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ValueError, match="is compressed"):
        open_loader(folder)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_but_the_first_corrupt_stops_rather_than_loops(
    tmp_path: Path, num_workers: int
) -> None:
    """The start is fine and the rest is not: one line, the same with workers."""
    bad = {n: sample(f"{n:04d}", b"no") for n in range(1, 20)}
    loader = open_loader(write_folder(tmp_path / "s", [20], bad), num_workers=num_workers)
    with pytest.raises(ValueError, match=r"\Askipped .* max_corrupt[^\n]*\Z"):
        take_keys(loader, 5)


def test_a_row_of_corrupt_samples_ends_even_where_any_share_is_allowed(tmp_path: Path) -> None:
    """A shard emptied after the start: no endless search."""
    folder = write_folder(tmp_path / "s", [20, 20])
    loader = open_loader(folder, max_corrupt=1.0)
    for shard in loader._open.values():
        shard.samples.clear()
    with pytest.raises(ValueError, match="40 samples in a row cannot be used"):
        next(loader.batches())


def test_no_shards_and_too_few_samples(tmp_path: Path) -> None:
    """An empty folder, a pattern without a match, fewer samples than a global batch."""
    with pytest.raises(FileNotFoundError, match="no shard matches"):
        open_loader(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no shard matches"):
        open_loader(str(tmp_path / "{00000..00003}.tar"))
    shards = write_folder(tmp_path / "s", [30, 20])
    with pytest.raises(ValueError, match="50 samples in .* do not fill one batch of 13 ranks x 4"):
        open_loader(shards, world_size=13)
    assert len(open_loader(shards, world_size=12)) == 1


def test_missing_languages_are_counted_at_once(tmp_path: Path) -> None:
    """With and without an index; `allow_missing` lets through what some sample has."""
    folder = write_folder(tmp_path / "s", [80], {70: sample("0070", languages=["en"])})
    with pytest.raises(ValueError, match="missing in de: captions of 80 samples: en 80, de 79"):
        open_loader(folder, languages=["en", "de"])
    index = {"shards": [{"name": "00000.tar"}], "languages": {"en": 80, "de": 5}, "num_samples": 80}
    Path(folder, "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="missing in de: captions of 80 samples: de 5, en 80"):
        open_loader(folder, languages=["de"])
    with pytest.raises(ValueError, match="no sample has captions in 'fr'; .* de, en"):
        open_loader(folder, languages=["fr"], allow_missing=True)
    loader = open_loader(folder, allow_missing=True)
    captions = [c for batch in itertools.islice(loader.batches(), 20) for c in batch["captions"]]
    assert sorted(map(len, captions)) == [1] + [2] * 79


def test_a_language_is_found_under_the_tag_that_the_shards_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One tag of the same language and script; every English will do for a teacher."""
    shards = [sample("0000", languages=["en-GB", "zh-CN"]), sample("0001", languages=["en-US"])]
    folder = write_folder(tmp_path / "s", [8], dict(enumerate(shards * 4)))
    loader = open_loader(folder, languages=["zh"], allow_missing=True)
    assert "captions in zh-CN are read as zh" in caplog.text
    assert loader.language_line == "captions of 8 samples: zh 4, en 8"
    found = next(loader.batches())["captions"]
    assert {key for captions in found for key in captions} == {"zh", "en"}
    assert {texts[0][:5] for captions in found for texts in captions.values()} == {
        "zh-CN",
        "en-GB",
        "en-US",
    }
    with pytest.raises(ValueError, match="'en' may be en-GB or en-US"):
        open_loader(folder, languages=["en"], allow_missing=True)
    with pytest.raises(ValueError, match="no sample has captions in 'zh-TW'"):
        open_loader(folder, languages=["zh-TW"], allow_missing=True)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_language_missing_further_on_stops_the_run(
    tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither an index nor the first samples tell, the sample is named when it comes."""
    monkeypatch.setattr("crosslingual.data.index.NUM_COUNTED", 64)
    folder = write_folder(tmp_path / "s", [80], {70: sample("0070", languages=["en"])})
    loader = open_loader(folder, num_workers=num_workers)
    message = r"0070 of .*00000.tar has no caption in de \(it has en\); choose"
    with pytest.raises(ValueError, match=message):
        take_keys(loader, 20)
