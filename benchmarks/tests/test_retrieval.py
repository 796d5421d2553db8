"""`crosslingual-bench retrieval` by its command line."""

import io
import json

import torch
from PIL import Image

from crosslingual.data.shards import write_shards
from crosslingual.data.sources import find_sources
from crosslingual.evaluation.retrieval import recall_at_k
from crosslingual.frozen.clip import load_clip
from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.results import by_protocol, read_results
from crosslingual_benchmarks.retrieval.embedders import PlainCLIP


def test_a_method_is_found_loaded_and_scored_in_every_language(
    register, root, bench, capsys, shade_encoder, results
):
    loaded = []
    register(shade=lambda path: loaded.append(path) or shade_encoder(), other=None)
    assert bench("--captions", "all", "--batch_size", "5") == 0
    assert loaded == ["model"]
    english, german = sorted(results(root), key=lambda result: result["n_texts"], reverse=True)
    assert (english["language"], english["n_texts"], german["n_texts"]) == ("en", 24, 12)
    assert english["metrics"] == {
        f"{way}_retrieval_recall@{k}": 1.0 for way in ("image", "text") for k in (1, 5, 10)
    }
    assert english["protocol"] == {
        "captions": "all",
        "ties": "pessimistic",
        "split": "all",
        "subset": "all",
        "gallery": 12,
    }
    assert (english["model"], english["pretrained"]) == ("shade", "model")
    assert english["task"] == "zeroshot_retrieval"
    assert english["interval95"]["mean_recall"] == [1.0, 1.0]
    out = capsys.readouterr().out
    assert "shade on xm3600 (captions all, ties pessimistic" in out
    assert [line.split()[:4] for line in out.split("\n") if line[:2] in ("de", "en")] == [
        ["de", "12", "12", "100.0"],
        ["en", "12", "24", "100.0"],
    ]


def test_pictures_pass_in_batches(register, bench, shade_encoder):
    encoder = shade_encoder()
    register(shade=lambda path: encoder)
    assert bench("--batch_size", "5") == 0
    assert encoder.seen == [5, 5, 2]


def test_lines_are_appended_read_back_and_apart_by_protocol(
    register, root, bench, shade_encoder, results
):
    register(shade=lambda path: shade_encoder())
    for captions in ("first", "all", "first"):
        assert bench("--languages", "en", "--captions", captions) == 0
    assert len(results(root)) == 3
    kept = read_results([root / "out"])
    assert len(by_protocol(kept, "zeroshot_retrieval")) == len(kept) == 2


def test_the_command_of_a_result_repeats_it(register, root, bench, shade_encoder, results):
    register(shade=lambda path: shade_encoder())
    (root / "images" / "p3.jpg").unlink()
    assert bench("--languages", "en", "de", "--allow_missing", "true", "--seed", "4") == 0
    first = results(root)
    words = first[0]["command"].split()
    assert words[:2] == ["crosslingual-bench", "retrieval"]
    assert main(words[1:]) == 0
    for before, after in zip(first, results(root)[2:], strict=True):
        assert before | {"wall_s": 0} == after | {"wall_s": 0}


def test_texts_that_several_pictures_have_tie_and_are_counted(
    register, root, bench, capsys, shade_encoder, results, rewrite
):
    register(shade=lambda path: shade_encoder())
    rewrite(root, 7, en=["picture 4", "picture 4"])
    assert bench("--languages", "en", "--captions", "all") == 0
    (result,) = results(root)
    assert result["n_duplicate_texts"] == 3
    # text->image: both texts of picture 7 find picture 4
    assert result["metrics"]["image_retrieval_recall@1"] == 22 / 24
    # image->text: picture 4's texts tie with both of picture 7, which finds none of its own
    assert result["metrics"]["text_retrieval_recall@1"] == 10 / 12
    assert "en: 3 texts belong to several pictures, and tie" in capsys.readouterr().out


def test_xtd10s_other_pictures_are_a_second_result(register, tmp_path, shade_encoder, results, png):
    register(shade=lambda path: shade_encoder())
    (tmp_path / "XTD10").mkdir()
    (tmp_path / "images").mkdir()
    names = [f"COCO_{'train' if n < 8 else 'val'}2014_{n:012d}.jpg" for n in range(10)]
    for number, name in enumerate(names):
        (tmp_path / "images" / name).write_bytes(png(number))
    (tmp_path / "XTD10/test_image_names.txt").write_text("\n".join(names))
    texts = "\r\n".join(f"numero {number}" for number in range(10))
    (tmp_path / "XTD10/test_1kcaptions_it.txt").write_bytes(texts.encode())
    words = ["--method", "shade", "--path", "x", "--dataset", "xtd10", "--root", str(tmp_path)]
    assert main(["retrieval", *words, "--output_dir", str(tmp_path / "out")]) == 0
    found = [(r["protocol"]["subset"], r["n_images"]) for r in results(tmp_path)]
    assert found == [("all", 10), ("not_train2014", 2)]


def test_a_plain_clip_on_pictures_of_the_world_scores_as_its_own_embeddings_do(
    tmp_path, capsys, results
):
    records = list(
        find_sources()["world"](languages=["en", "de"], num_samples=16, split="test", distinct=True)
    )
    write_shards(records, tmp_path / "shards")
    words = ["--method", "clip", "--path", "testbed:clip", "--dataset", "shards", "--root"]
    words += [str(tmp_path / "shards"), "--output_dir", str(tmp_path / "out"), "--batch_size", "6"]
    assert main(["retrieval", *words, "--languages", "en", "de"]) == 0
    english, german = results(tmp_path)
    clip = PlainCLIP(load_clip("testbed:clip"))
    pictures = [Image.open(io.BytesIO(record.image)) for record in records]
    texts = [record.captions["en"][0] for record in records]
    recall = recall_at_k(clip.embed_image(pictures), clip.embed_text(texts), torch.arange(16))
    assert english["metrics"] == recall.metrics()
    assert english["mean_recall"] > 0.5 > german["mean_recall"]  # it never read German
    assert english["dataset_sha256"] == json.load(open(tmp_path / "shards/index.json"))["sha256"]
    assert "clip on " in capsys.readouterr().out
