"""AltCLIP's retrieval by the command line, against a plain count."""

import json
from pathlib import Path

import pytest
import torch

import altdiffusion
from altdiffusion.text.artifact import save_altclip
from altdiffusion.text.encoder import load_text_encoder
from altdiffusion.text.pipeline import load_embedder
from crosslingual.data.loader import ShardLoader
from crosslingual.frozen.clip import load_clip
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command, succeeded
from crosslingual_worlds.testing.host import unchanged_host


@pytest.fixture(scope="module")
def altclip(student: str, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("altclip") / "altclip"
    save_altclip(folder, load_text_encoder(student), load_clip(teacher))
    return str(folder)


def test_recall_is_that_of_a_plain_count(
    command: Command, altclip: str, shards: str, tmp_path: Path
) -> None:
    settings = {"model": altclip, "dataset": shards, "output_dir": tmp_path, "languages": ["fr"]}
    answer = succeeded(command("evaluate-retrieval", **settings, num_bootstrap=0))
    result = json.loads((tmp_path / "results.json").read_text())
    embedder = load_embedder(altclip)
    batch = next(ShardLoader(shards, batch_size=24, seed=0, resolution=32, shuffle=False).batches())
    images = embedder.embed_images(batch["images"])
    texts = embedder.embed_text([captions["fr"][0] for captions in batch["captions"]])
    scores = texts @ images.T
    for k in (1, 5, 10):
        ahead = (scores >= scores.diag()[:, None]).sum(dim=1) - 1
        share = (ahead < k).float().mean().item()
        assert result["metrics"][f"image_retrieval_recall@{k}"] == pytest.approx(share)
    assert result["n_images"] == result["n_texts"] == 24
    assert result["language"] == "fr" and result["model"] == "altclip"
    assert "T->I R@1" in answer["stdout"][0]


def test_embedding_leaves_the_host_program_as_it_found_it_and_warns_of_a_cut_text(
    altclip: str,
) -> None:
    load_embedder(altclip)
    with unchanged_host():
        embedder = altdiffusion.METHOD.load_embedder(altclip)
        embedder.embed_text(["ein Haus"])
    with pytest.warns(UserWarning, match="longer than the .* tokens.*cut, from"):
        embedder.embed_text(["ein Haus", "ein Haus " * 99])


def test_a_clip_as_it_is_can_be_compared_and_mistakes_are_one_line(
    command: Command, teacher: str, shards: str, tmp_path: Path
) -> None:
    settings = {"model": teacher, "dataset": shards, "output_dir": tmp_path}
    succeeded(command("evaluate-retrieval", **settings, languages=["fr"], num_bootstrap=10))
    assert json.loads((tmp_path / "results.json").read_text())["model"] == "clip"
    for languages, message in (
        ([], "languages is empty"),
        (["de"], "captions are missing in de"),
    ):
        line = refusal(command("evaluate-retrieval", **settings, languages=languages))
        assert message in line


def test_the_entry_point_embeds_texts_and_pictures(altclip: str) -> None:
    from PIL import Image

    embedder = altdiffusion.METHOD.load_embedder(altclip)
    texts = embedder.embed_text(["house 1", "ein Haus 1 und mehr", "x"])
    pictures = embedder.embed_image(
        [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    )
    assert texts.shape == (3, 6) and pictures.shape == (2, 6)
    for rows in (texts, pictures):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    alone = embedder.embed_text(["ein Haus 1 und mehr"])
    torch.testing.assert_close(alone[0], texts[1], rtol=1e-4, atol=1e-5)
    assert embedder.embed_image([]).shape == (0, 6)
