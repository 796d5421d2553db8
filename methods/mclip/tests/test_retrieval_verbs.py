"""A trained model in use: `mclip evaluate`, `embed`, `search` and the embedder under them."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mclip
from crosslingual.data.loader import ShardLoader
from crosslingual.data.records import Record
from crosslingual.data.shards import iter_shards, write_shards
from crosslingual.data.sources import find_sources
from crosslingual.data.tars import expand_shards
from crosslingual.evaluation.retrieval import recall_at_k
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual_worlds.testing.host import unchanged_host
from mclip.__main__ import main
from mclip.artifact import load_model, model_config, save_model
from mclip.method import TriKD
from mclip.pipeline import Embedder, load_embedder
from mclip.retrieval.embed import list_pictures
from mclip.retrieval.search import PICTURE_SIZE, script_language
from mclip.settings import TrainSettings

TEXTS = ["ein Haus", "十", "une maison rouge et bleue", "x y z", "A"]
SHAPE = {"num_heads": 2, "ffn_width": 16}

Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def model(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An exported model with projectors as they start."""
    torch.manual_seed(0)
    config = model_config(TrainSettings(**SHAPE, **parts))
    folder = tmp_path_factory.mktemp("trained") / "model"
    save_model(TriKD(config).state_dict(), config, folder)
    return str(folder)


@pytest.fixture(scope="module")
def embedder(model: str) -> Embedder:
    return load_embedder(model, batch_size=3)


@pytest.fixture(scope="module")
def pictures(shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shards' pictures as files, some in a folder below."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for number, record in enumerate(iter_shards(expand_shards(shards))):
        below = "more/" if number % 3 == 0 else ""
        (folder / f"{below}{record.key}.png").write_bytes(record.image)
    return str(folder)


@pytest.fixture(scope="module")
def index(model: str, shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embeddings of the shards' pictures, by `mclip embed`."""
    prefix = str(tmp_path_factory.mktemp("index") / "pictures")
    assert main(["embed", "--model", model, "--shards", shards, "--output", prefix]) == 0
    return prefix


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a verb that must be refused, and returns the one line that it prints."""

    def run(*words: str) -> str:
        assert main([*map(str, words)]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1, line
        return line

    return run


def several_captions(number: int) -> Record:
    pixels = np.random.default_rng(number).integers(0, 256, (36, 36, 3)).astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    captions = {"de": [f"Bild {number}", f"das Bild {number}"], "en": [f"picture {number}"]}
    return Record(f"{number:03d}", picture.getvalue(), captions, parallel=True)


def test_a_texts_row_is_the_projectors_output_alone_in_any_company(
    embedder: Embedder, model: str, parts: dict[str, Any]
) -> None:
    encoder = load_multilingual_encoder(parts["text_encoder"], max_length=16)
    projectors, _ = load_model(model)
    found = embedder.embed_text(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        states, mask = encoder.encode([text])
        length = int(mask.sum())
        with torch.no_grad():
            expected = projectors.x_projector(states[0, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(row, expected / expected.norm(), atol=1e-5, rtol=1e-4)
    reverse = load_embedder(model, batch_size=2).embed_text(TEXTS[::-1])
    torch.testing.assert_close(reverse.flip(0), found, atol=1e-5, rtol=1e-4)


def test_rows_are_unit_fp32_and_texts_and_pictures_share_their_width(
    embedder: Embedder, pictures: str
) -> None:
    files = [Path(pictures) / name for name in list_pictures(pictures)]
    rows = embedder.embed_image(map(Image.open, files))
    texts = embedder.embed_text([*TEXTS, ""])
    assert rows.shape == (24, embedder.width) and texts.shape == (6, embedder.width)
    for part in (rows, texts):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.norm(dim=1), torch.ones(len(part)))
    assert embedder.embed_text([]).shape == embedder.embed_image([]).shape == (0, embedder.width)


def test_a_picture_is_read_alike_from_shards_and_as_an_open_file(
    embedder: Embedder, shards: str
) -> None:
    loader = ShardLoader(shards, batch_size=6, seed=0, resolution=36, shuffle=False)
    images = next(loader.batches())["images"]
    records = islice(iter_shards(expand_shards(shards)), 6)
    opened = [Image.open(io.BytesIO(record.image)) for record in records]
    torch.testing.assert_close(embedder.embed_image(opened), embedder.embed_images(images))


def test_embedding_leaves_the_host_program_as_it_found_it_and_warns_of_a_cut_text(
    model: str, pictures: str
) -> None:
    picture = Image.open(next(Path(pictures).iterdir()))
    load_embedder(model).embed_image([picture])
    with unchanged_host():
        embedder = mclip.METHOD.load_embedder(model)
        embedder.embed_text(["ein Haus"])
        embedder.embed_image([picture])
    with unchanged_host(), pytest.raises((FileNotFoundError, ValueError)):
        load_embedder("no/such/model")
    with pytest.warns(UserWarning, match="longer than the .* tokens.*cut, from"):
        embedder.embed_text(["A", "A B " * 99])


def test_a_clip_as_it_is_serves_as_the_bound(clip: str) -> None:
    bare = mclip.METHOD.load_embedder(clip)
    expected = bare.clip.encode_texts(["house 3"])
    torch.testing.assert_close(bare.embed_text(["house 3"]), expected / expected.norm())
    assert (bare.resolution, bare.width) == (32, 10)


def test_evaluate_writes_what_recall_at_k_says(
    embedder: Embedder, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(map(several_captions, range(15)), tmp_path / "shards")
    words = ["--model", model, "--dataset", str(tmp_path / "shards"), "--languages", "de", "en"]
    words += ["--output_dir", str(tmp_path / "run"), "--batch_size", "4", "--num_bootstrap", "20"]
    for captions in ("first", "all"):
        assert main(["evaluate", *words, "--captions", captions]) == 0
    lines = (tmp_path / "run" / "results.json").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["language"] for result in results] == ["de", "en", "de", "en"]
    records = [several_captions(number) for number in range(15)]
    rows = embedder.embed_image(Image.open(io.BytesIO(record.image)) for record in records)
    for result, num_captions in ((results[0], 1), (results[2], 2)):
        texts = [text for record in records for text in record.captions["de"][:num_captions]]
        places = torch.arange(15).repeat_interleave(num_captions)
        expected = recall_at_k(rows, embedder.embed_text(texts), places)
        assert result["metrics"] == expected.metrics()
        assert result["n_texts"] == 15 * num_captions and result["n_images"] == 15
        low, high = result["interval95"]["mean_recall"]
        assert low <= result["mean_recall"] <= high
    assert [result["protocol"]["captions"] for result in results] == ["first"] * 2 + ["all"] * 2
    index = json.loads((tmp_path / "shards" / "index.json").read_text())
    assert results[0]["dataset_sha256"] == index["sha256"]
    assert results[0]["model"] == "mclip" and results[0]["pretrained"] == model
    printed = capsys.readouterr().out
    assert f"{100 * results[0]['mean_recall']:10.1f}" in printed and "T->I R@10" in printed


def test_the_testbeds_clip_finds_by_english_and_not_by_german(tmp_path: Path) -> None:
    records = find_sources()["world"](
        languages=["en", "de"], num_samples=80, split="test", distinct=True
    )
    write_shards(records, tmp_path / "shards")
    words = ["--model", "testbed:clip", "--dataset", str(tmp_path / "shards")]
    words += ["--languages", "en", "de", "--output_dir", str(tmp_path), "--num_bootstrap", "0"]
    assert main(["evaluate", *words]) == 0
    english, german = map(json.loads, (tmp_path / "results.json").read_text().splitlines())
    assert english["mean_recall"] > 0.95 and german["mean_recall"] < 0.5
    assert english["model"] == "clip" and "interval95" not in english


def test_evaluate_refuses_missing_pictures_and_captions(
    model: str, shards: str, tmp_path: Path, refuse: Refuse
) -> None:
    def records() -> Iterator[Record]:
        for number in range(6):
            record = several_captions(number)
            yield Record(record.key, record.image if number else None, record.captions, True)

    write_shards(records(), tmp_path / "shards")
    words = ["--model", model, "--output_dir", tmp_path, "--languages"]
    line = refuse("evaluate", *words, "de", "--dataset", tmp_path / "shards")
    assert "skipped 1 of 6 samples" in line and "recall among fewer pictures" in line
    assert "captions are missing in fr" in refuse(
        "evaluate", *words, "de", "fr", "--dataset", shards
    )
    assert "no shard matches" in refuse("evaluate", *words, "de", "--dataset", tmp_path / "none")
    assert not (tmp_path / "results.json").exists()


def test_embed_writes_rows_and_what_they_are_of(
    embedder: Embedder, model: str, pictures: str, index: str, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    for kind, source in (("images", pictures), ("texts", str(tmp_path / "texts.txt"))):
        words = ["--model", model, f"--{kind}", source, "--output", str(tmp_path / kind)]
        assert main(["embed", *words]) == 0
    rows = {name: np.load(f"{name}.npy") for name in (index, tmp_path / "images")}
    assert all(part.dtype == np.float32 and part.shape == (24, 12) for part in rows.values())
    files = json.loads((tmp_path / "images.json").read_text())
    keys = json.loads(Path(f"{index}.json").read_text())
    assert keys["width"] == 12 and keys["model"] == model and len(keys["model_weights"]) == 64
    places = [keys["names"].index(Path(name).stem) for name in files["names"]]
    np.testing.assert_allclose(rows[index][places], rows[tmp_path / "images"], atol=1e-6)
    texts = np.load(tmp_path / "texts.npy")
    np.testing.assert_allclose(texts, embedder.embed_text(TEXTS).numpy(), atol=1e-6)
    assert json.loads((tmp_path / "texts.json").read_text())["names"] == TEXTS


def test_search_ranks_as_cosines_do_and_draws_a_sheet(
    embedder: Embedder,
    model: str,
    pictures: str,
    index: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    queries = ["ein Haus 3", "赤い家", "منزل أحمر"]
    rows = np.load(f"{index}.npy")
    names = json.loads(Path(f"{index}.json").read_text())["names"]
    cosines = embedder.embed_text(queries).numpy() @ rows.T
    expected = [names[place] for place in np.argsort(-cosines, axis=1)[:, :4].flatten()]
    for source in (["--index", index], ["--images", pictures]):
        sheet = tmp_path / "sheets" / "found.png"
        words = ["--model", model, "--query", *queries, "--top", "4", "--output", str(sheet)]
        assert main(["search", *words, *source]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = [line.split()[-1] for line in lines if line.startswith("   ")]
        assert [Path(name).stem for name in found] == expected
        assert [line for line in lines if line in queries] == queries
        with Image.open(sheet) as picture:
            assert picture.width > 4 * PICTURE_SIZE < picture.height


def test_queries_are_set_in_their_own_scripts_fonts() -> None:
    queries = {"ein Stern": "en", "红色的星": "zh", "赤い星": "ja", "별": "ko", "ดาว": "th"}
    queries |= {"نجمة": "ar", "तारा": "hi", "звезда": "en"}
    assert {query: script_language(query) for query in queries} == queries


def test_an_index_of_another_model_or_of_texts_is_refused(
    model: str, index: str, clip: str, pictures: str, tmp_path: Path, refuse: Refuse
) -> None:
    query = ["--query", "x", "--output", tmp_path / "found.png"]
    assert "made by another model" in refuse("search", "--model", clip, "--index", index, *query)
    (tmp_path / "texts.txt").write_text("a\nb\n")
    words = ["--model", model, "--output", tmp_path / "texts"]
    assert main(["embed", *map(str, words), "--texts", str(tmp_path / "texts.txt")]) == 0
    line = refuse("search", "--model", model, "--index", tmp_path / "texts", *query)
    assert "holds texts" in line
    assert "run `mclip embed`" in refuse("search", "--model", model, "--index", "none", *query)
    own = sorted(Path(pictures).rglob("*.png"))[0]
    words = ["--images", pictures, "--query", "x", "--output", own]
    assert "is an input, which would be lost" in refuse("search", "--model", model, *words)
    both = ["--index", index, "--images", pictures]
    assert "give one of" in refuse("search", "--model", model, *both, *query)
    shutil.copy(tmp_path / "texts.npy", tmp_path / "spoilt.npy")
    shutil.copy(f"{index}.json", tmp_path / "spoilt.json")
    line = refuse("search", "--model", model, "--index", tmp_path / "spoilt", *query)
    assert "embed again" in line


def test_embed_refuses_what_it_cannot_read(model: str, tmp_path: Path, refuse: Refuse) -> None:
    words = ["--model", model, "--output", tmp_path / "out"]
    assert "give one of --images" in refuse("embed", *words)
    assert "no picture (" in refuse("embed", *words, "--images", tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "broken.png: broken picture" in refuse("embed", *words, "--images", tmp_path)
    (tmp_path / "texts.txt").write_text("a\n\nb\n")
    line = refuse("embed", *words, "--texts", tmp_path / "texts.txt")
    assert "texts.txt: line 2 is empty" in line
    absent = ["--model", tmp_path / "no", *words[2:], "--images", tmp_path]
    assert "no folder and no reachable hub entry" in refuse("embed", *absent)
    assert not (tmp_path / "out.json").exists()


def test_a_table_has_the_models_as_columns_and_groups_of_languages_as_rows(
    tmp_path: Path, refuse: Refuse
) -> None:
    recalls = {("x", "en"): 0.8, ("x", "de"): 0.1, ("y", "en"): 0.6, ("y", "de"): 0.4}
    rows = [
        {"pretrained": model, "language": language, "mean_recall": recall, "n_images": 9}
        for (model, language), recall in [(("y", "de"), 0.0), *recalls.items()]  # the last counts
    ]
    (tmp_path / "results.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["table", "--results", tmp_path / "results.json", "--output", tmp_path / "table.md"]
    words += ["--models", "as-is=x", "mCLIP=y", "--groups", "pictures=en", "parallel text=de"]
    assert main([*map(str, words)]) == 0
    assert (tmp_path / "table.md").read_text().splitlines()[3:] == [
        "| language | trained with | as-is | mCLIP | of English CLIP |",
        "|---|---|---:|---:|---:|",
        "| en | pictures | 0.800 | 0.600 | 75% |",
        "| de | parallel text | 0.100 | 0.400 | 50% |",
    ]
    assert "has no result of x in ja" in refuse(*words, "none=ja")


def test_an_index_replaces_no_file_of_others_and_a_flipped_byte_is_found(
    model: str, index: str, tmp_path: Path, refuse: Refuse
) -> None:
    for ending in ("json", "npy"):
        shutil.copy(f"{index}.{ending}", tmp_path / f"copy.{ending}")
    with (tmp_path / "copy.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    search = ["search", "--model", model, "--query", "x", "--output", tmp_path / "x.png"]
    assert "copy.npy is not what" in refuse(*search, "--index", tmp_path / "copy")
    (tmp_path / "copy.json").write_text('{"width": 1}')
    assert "copy.json is broken (its kind is missing)" in refuse(
        *search, "--index", tmp_path / "copy"
    )
    (tmp_path / "index.json").write_text('{"mine": 1}')
    (tmp_path / "texts.txt").write_text("x\n")
    embed = ["embed", "--model", model, "--texts", tmp_path / "texts.txt"]
    line = refuse(*embed, "--output", tmp_path / "index")
    assert "index.json is there and of no earlier result" in line
    assert (tmp_path / "index.json").read_text() == '{"mine": 1}'


def test_embed_leaves_out_what_is_no_sample_and_names_it(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty caption, a broken picture and one that is missing, among two good samples."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    good, cut = picture.getvalue(), picture.getvalue()[:40]
    samples = {"a": (good, b"ein Stern"), "b": (good, b" "), "c": (cut, b"ein Ring")}
    samples |= {"d": (None, b"ein Hund"), "e": (good, b"ein Haus")}
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for key, (image, text) in samples.items():
            for name, data in ((f"{key}.png", image), (f"{key}.txt", text)):
                if data is not None:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    words = ["--model", model, "--output", str(tmp_path / "out"), "--shards", str(tmp_path)]
    assert main(["embed", *words]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["names"] == ["a", "e"]
    assert "3 samples are left out" in (said := capsys.readouterr().out)
    assert "d: no picture" in said
