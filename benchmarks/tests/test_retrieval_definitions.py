"""Recall of the whole verb against the definitions, written out plainly, on random vectors; chance
and a collapsed encoder.
"""

import io
import math
import tarfile

import pytest
import torch
from PIL import Image

from crosslingual_benchmarks.retrieval import embedders
from crosslingual_benchmarks.retrieval.verb import RetrievalSettings, retrieval

NUM_PICTURES = 60
KS = (1, 5, 10)


class Fixed:
    """An encoder of pictures by their colour and of texts by their number, from given rows."""

    def __init__(self, image_rows, text_rows):
        self.image_rows, self.text_rows = image_rows, text_rows

    def embed_image(self, pictures):
        return self.image_rows[[p.convert("RGB").getpixel((0, 0))[0] for p in pictures]]

    def embed_text(self, texts):
        return self.text_rows[[int(text) for text in texts]]


def write_wds(root, num_captions):
    """A picture of one colour a number, and captions that are numbers of rows."""
    (root / "test").mkdir(parents=True)
    (root / "dataset_type.txt").write_text("retrieval")
    (root / "test" / "nshards.txt").write_text("1")
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for number in range(NUM_PICTURES):
            png = io.BytesIO()
            Image.new("RGB", (4, 4), (number, 0, 0)).save(png, format="png")
            numbers = range(number * num_captions, (number + 1) * num_captions)
            members = {"png": png.getvalue(), "txt": "\n".join(map(str, numbers)).encode()}
            for extension, data in members.items():
                info = tarfile.TarInfo(f"s{number:07d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the verb with given rows; its one result."""

    def call(image_rows, text_rows, num_captions, captions):
        root = tmp_path / "wds"
        if not root.exists():
            write_wds(root, num_captions)
        encoder = Fixed(image_rows, text_rows)
        monkeypatch.setattr(embedders, "load_embedder", lambda *_: encoder)
        (result,) = retrieval(
            RetrievalSettings(
                method="fixed",
                dataset="clip_benchmark_wds",
                root=str(root),
                output_dir=str(tmp_path / "results"),
                captions=captions,
                batch_size=7,
                num_bootstrap=0,
            )
        )
        return result

    return call


def random_rows(num_captions):
    """Vectors whose texts are near their pictures, so that recall is neither 0 nor 1."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(NUM_PICTURES, 8, generator=generator)
    noise = torch.randn(NUM_PICTURES * num_captions, 8, generator=generator)
    texts = images.repeat_interleave(num_captions, dim=0) + 1.5 * noise
    return torch.nn.functional.normalize(images), torch.nn.functional.normalize(texts)


def text_to_image(scores, picture_of, k):
    """The share of texts whose own picture is among their k best."""
    found = 0
    for row, picture in zip(scores, picture_of, strict=True):
        order = sorted(range(len(row)), key=lambda place: -row[place])
        found += picture in order[:k]
    return found / len(scores)


def image_to_text_any(scores, picture_of, k):
    """The share of pictures of whose texts any is among their k best."""
    found = 0
    for picture in range(NUM_PICTURES):
        order = sorted(range(len(scores)), key=lambda text: -scores[text][picture])
        found += any(picture_of[text] == picture for text in order[:k])
    return found / NUM_PICTURES


def test_recall_of_the_first_caption_is_the_definition_on_first_captions_alone(run):
    images, texts = random_rows(5)
    scores = (texts[::5].double() @ images.double().T).tolist()
    result = run(images, texts, 5, "first")
    own = list(range(NUM_PICTURES))
    for k in KS:
        expected = text_to_image(scores, own, k)
        assert result["metrics"][f"image_retrieval_recall@{k}"] == pytest.approx(expected)
        expected = image_to_text_any(scores, own, k)
        assert result["metrics"][f"text_retrieval_recall@{k}"] == pytest.approx(expected)
    assert (result["n_texts"], result["protocol"]["captions"]) == (NUM_PICTURES, "first")


def test_recall_of_all_captions_is_the_definition_over_every_text(run):
    images, texts = random_rows(5)
    scores = (texts.double() @ images.double().T).tolist()
    picture_of = [text // 5 for text in range(5 * NUM_PICTURES)]
    result = run(images, texts, 5, "all")
    for k in KS:
        expected = text_to_image(scores, picture_of, k)
        assert result["metrics"][f"image_retrieval_recall@{k}"] == pytest.approx(expected)
    assert (result["n_texts"], result["protocol"]["captions"]) == (5 * NUM_PICTURES, "all")


def test_recall_of_texts_by_pictures_counts_any_of_five(run):
    images, texts = random_rows(5)
    scores = (texts.double() @ images.double().T).tolist()
    picture_of = [text // 5 for text in range(5 * NUM_PICTURES)]
    result = run(images, texts, 5, "all")
    shares = [result["metrics"][f"text_retrieval_recall@{k}"] for k in KS]
    assert shares == pytest.approx([image_to_text_any(scores, picture_of, k) for k in KS])
    assert shares != pytest.approx([text_to_image(scores, picture_of, k) for k in KS])


def test_a_collapsed_encoder_finds_nothing_and_a_warning_says_why(run, capsys):
    images = torch.ones(NUM_PICTURES, 8) / math.sqrt(8)
    result = run(images, images, 1, "first")
    assert set(result["metrics"].values()) == {0.0}
    assert result["n_ties"] == 2 * NUM_PICTURES
    assert result["warnings"] == [
        "collapsed: the embeddings of all 60 pictures are the same vector",
        "collapsed: the embeddings of all 60 texts in en are the same vector",
    ]
    assert "en: warning: collapsed: the embeddings of all 60 pictures" in capsys.readouterr().out


def test_an_encoder_that_is_not_collapsed_has_no_warning(run):
    assert run(*random_rows(1), 1, "first")["warnings"] == []


def test_a_random_encoder_finds_k_of_n_within_a_binomial_interval(tmp_path):
    root = tmp_path / "wds"
    write_wds(root, 1)
    hits = dict.fromkeys(KS, 0.0)
    num_runs = 20
    for seed in range(num_runs):
        (result,) = retrieval(
            RetrievalSettings(
                method="random",
                dataset="clip_benchmark_wds",
                root=str(root),
                output_dir=str(tmp_path / "results"),
                num_bootstrap=0,
                seed=seed,
            )
        )
        for k in KS:
            hits[k] += NUM_PICTURES * result["metrics"][f"image_retrieval_recall@{k}"]
    num_queries = num_runs * NUM_PICTURES
    for k in KS:
        share = k / NUM_PICTURES
        deviation = math.sqrt(num_queries * share * (1 - share))
        # four deviations: a chance of 6e-5 to fail wrongly, and the seeds are fixed
        assert abs(hits[k] - num_queries * share) < 4 * deviation
