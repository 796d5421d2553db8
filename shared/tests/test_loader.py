"""The loader: one order for every number of ranks and workers, resumed at any step."""

import itertools
import json
import pickle
from pathlib import Path

import pytest
import torch

from crosslingual.data import order as sample_order
from crosslingual_worlds.testing.shards import (
    open_loader,
    picture,
    sample,
    samples,
    take_keys,
    write_folder,
    write_tar,
)

RESOLUTION = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fifty samples in shards of unequal sizes."""
    return write_folder(tmp_path_factory.mktemp("data") / "shards", [17, 3, 20, 10])


def test_a_batch_holds_pictures_captions_and_the_rest(tmp_path: Path) -> None:
    """Every field arrives with its own sample; pixels span [-1, 1]."""
    colors = {n: (n * 60, 255, 0) for n in range(4)}
    replaced = {n: sample(f"{n:04d}", picture(color)) for n, color in colors.items()}
    loader = open_loader(write_folder(tmp_path / "s", [4], replaced))
    batch = next(loader.batches())
    assert sorted(batch["keys"]) == [f"{n:04d}" for n in range(4)]
    assert batch["images"].shape == (4, 3, RESOLUTION, RESOLUTION)
    assert batch["images"].dtype == torch.float32 and batch["images"].is_contiguous()
    for row, key in enumerate(batch["keys"]):
        expected = torch.tensor(colors[int(key)]) / 127.5 - 1
        torch.testing.assert_close(batch["images"][row, :, 5, 2], expected)
        assert batch["captions"][row] == {"en": [f"en {key}"], "de": [f"de {key}"]}
        assert batch["extra"][row] == {"number": int(key)}
    assert batch["parallel"].tolist() == [True] * 4 and batch["culture"] == [None] * 4


def test_an_epoch_holds_every_sample_once_and_epochs_differ(shards: str) -> None:
    """Without a remainder, an epoch is a permutation."""
    loader = open_loader(shards, batch_size=5)
    keys = [key for batch in take_keys(loader, 20) for key in batch]
    assert len(loader) == 10
    assert sorted(keys[:50]) == sorted(keys[50:]) == [f"{n:04d}" for n in range(50)]
    assert keys[:50] != keys[50:] and keys[:50] != sorted(keys[:50])


def test_the_seed_alone_decides_the_order(shards: str) -> None:
    """Equal seeds, equal batches; another seed, another order."""
    assert take_keys(open_loader(shards), 15) == take_keys(open_loader(shards), 15)
    assert take_keys(open_loader(shards), 15) != take_keys(open_loader(shards, seed=4), 15)


@pytest.mark.parametrize("windows", [(1, 64), (12, 64), (65_536, 2)])
def test_windows_keep_the_permutation_whole(
    shards: str, windows: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the windows, an epoch holds every sample once."""
    monkeypatch.setattr(sample_order, "WINDOW_SAMPLES", windows[0])
    monkeypatch.setattr(sample_order, "WINDOW_SHARDS", windows[1])
    order = sample_order.SampleOrder([17, 3, 0, 20, 10], seed=1)
    places = [order.locate(2, position) for position in range(50)]
    assert len(set(places)) == 50
    assert all(0 <= index < order.sizes[shard] for shard, index in places)
    changes = sum(a[0] != b[0] for a, b in itertools.pairwise(places))
    assert changes == 3 if windows == (1, 64) else changes > 3
    assert places == [order.locate(2, position) for position in range(50)]


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 4), (4, 2), (8, 1)])
def test_the_data_do_not_depend_on_the_number_of_ranks(
    shards: str, world_size: int, batch_size: int
) -> None:
    """The ranks' batches in line are the batch of one rank, though shards < ranks."""
    one = take_keys(open_loader(shards, batch_size=8), 14)
    ranks = [
        open_loader(shards, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(loader) for loader in ranks} == {50 // 8}
    parts = [take_keys(loader, 14) for loader in ranks]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == one


@pytest.mark.parametrize("start_step", [1, 11, 12, 13, 40])
def test_a_resume_at_any_step_goes_on_exactly(shards: str, start_step: int) -> None:
    """Batches from step s on are those of the run that was never stopped, pictures too."""
    whole = list(itertools.islice(open_loader(shards).batches(), start_step + 3))
    resumed = list(itertools.islice(open_loader(shards).batches(start_step), 3))
    for a, b in zip(whole[start_step:], resumed, strict=True):
        assert a["keys"] == b["keys"] and torch.equal(a["images"], b["images"])


def test_workers_change_neither_order_nor_counts(tmp_path: Path) -> None:
    """More workers than shards, over an epoch's end and over a broken picture."""
    folder = write_folder(tmp_path / "s", [20], {n: sample(f"{n:04d}", b"no") for n in (3, 4)})
    states = []
    for num_workers in (0, 1, 2):
        loader = open_loader(folder, num_workers=num_workers, max_corrupt=0.2)
        states.append((take_keys(loader, 9, start_step=2), loader.faults, loader.num_read))
    assert states[0] == states[1] == states[2]
    assert len(states[0][1]) == 2


def test_loading_leaves_the_global_generator_alone(shards: str) -> None:
    """A resumed run draws the same noise as one that was never stopped."""
    before = torch.get_rng_state()
    take_keys(open_loader(shards), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_can_be_sent_to_a_process_that_is_not_forked(shards: str) -> None:
    """Open files stay behind and are opened anew."""
    loader = open_loader(shards)
    assert pickle.loads(pickle.dumps(loader))[5][0]["keys"] == loader[5][0]["keys"]


def test_shards_at_an_address_are_read_like_local_ones(shards: str) -> None:
    """Through fsspec, here its memory filesystem."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in Path(shards).glob("*.tar"):
        memory.pipe(f"/loader/{path.name}", path.read_bytes())
    try:
        assert take_keys(open_loader("memory://loader"), 12) == take_keys(open_loader(shards), 12)
    finally:
        memory.rm("/loader", recursive=True)


def test_stored_order_gives_each_usable_sample_once(tmp_path: Path) -> None:
    """The last batch is short, and a broken sample is left out, not replaced."""
    folder = write_folder(tmp_path / "s", [4, 6], {5: sample("0005", b"no")})
    loader = open_loader(folder, shuffle=False, max_corrupt=0.1)
    assert len(loader) == 3
    batches = list(itertools.islice(loader.batches(), len(loader)))
    kept = [f"{n:04d}" for n in range(10) if n != 5]
    assert [key for batch in batches for key in batch["keys"]] == kept
    assert [len(batch["images"]) for batch in batches] == [4, 3, 2]


def test_captions_alone_need_no_picture(tmp_path: Path) -> None:
    """Without a resolution, text-only samples load."""
    write_tar(tmp_path / "0.tar", samples(4)[1::2])
    batch = next(open_loader(str(tmp_path), resolution=None).batches())
    assert batch["images"] is None and len(batch["captions"]) == 4
    with pytest.raises(ValueError, match="no picture; names found: json:captions, json:culture"):
        open_loader(str(tmp_path))


def test_shards_of_others_are_read(tmp_path: Path) -> None:
    """A lone KEY.txt has the named language; JSON keys are mapped; `_stats.json` gives the size."""
    image = picture()
    fields = json.dumps({"caption_zh": "红色", "url": "x"}).encode()
    rows = [[(f"{n}.png", image), (f"{n}.txt", b"red"), (f"{n}.json", fields)] for n in range(4)]
    write_tar(tmp_path / "00000.tar", [member for row in rows for member in row])
    (tmp_path / "00000_stats.json").write_text('{"count": 5, "successes": 4}')
    options = {"caption_language": "ru", "languages": ["ru"]}
    batch = next(open_loader(str(tmp_path), **options).batches())
    assert batch["captions"] == [{"ru": ["red"]}] * 4
    options = {"key_map": {"caption_zh": "zh"}, "languages": ["zh"]}
    batch = next(open_loader(str(tmp_path), **options).batches())
    assert batch["captions"] == [{"zh": ["红色"]}] * 4 and batch["extra"][0]["url"] == "x"
    with pytest.raises(ValueError) as raised:
        open_loader(str(tmp_path), key_map={"caption_ja": "ja"}, languages=None)
    assert "caption_ja" in str(raised.value)
    assert "names found: json:caption_zh, json:url, png, txt" in str(raised.value)
