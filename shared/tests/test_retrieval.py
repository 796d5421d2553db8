"""Recall@K equals its definition by brute force, ties and collapsed encoders included."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crosslingual.evaluation.retrieval import Recall, append_result, recall_at_k, result_json

KS = (1, 5, 10)


def sign_rows(rows: int, generator: torch.Generator) -> Tensor:
    """Rows of 16 signs: their cosines are exact in fp32, and many are equal."""
    return torch.randint(0, 2, (rows, 16), generator=generator) * 2.0 - 1


def brute_force(images: Tensor, texts: Tensor, image_of_text: Tensor) -> tuple[dict, dict, int]:
    """Recall by sorting one query's candidates after another, wrong ones first among equals."""

    def unit(rows: Tensor) -> np.ndarray:
        values = rows.double().numpy()
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    scores, pictures = unit(texts) @ unit(images).T, image_of_text.numpy()
    ties = 0

    def is_found(row: np.ndarray, right: np.ndarray, k: int) -> bool:
        order = sorted(range(len(row)), key=lambda place: (-row[place], right[place]))
        return any(right[place] for place in order[:k])

    text_to_image, image_to_text = {}, {}
    for k in KS:
        hits = [
            is_found(scores[t], np.arange(len(images)) == pictures[t], k) for t in range(len(texts))
        ]
        text_to_image[k] = sum(hits) / len(hits)
        hits = [is_found(scores[:, i], pictures == i, k) for i in range(len(images))]
        image_to_text[k] = sum(hits) / len(hits)
    for row, right in [
        *((scores[t], np.arange(len(images)) == pictures[t]) for t in range(len(texts))),
        *((scores[:, i], pictures == i) for i in range(len(images))),
    ]:
        ties += bool((row[~right] == row[right].max()).any())
    return text_to_image, image_to_text, ties


@pytest.mark.parametrize(("num_images", "num_texts", "chunk_rows"), [(40, 40, 7), (31, 97, 1024)])
def test_recall_equals_brute_force_with_ties(
    num_images: int, num_texts: int, chunk_rows: int
) -> None:
    generator = torch.Generator().manual_seed(num_texts)
    extra = torch.randint(num_images, (num_texts - num_images,), generator=generator)
    image_of_text = torch.cat([torch.arange(num_images), extra])
    image_of_text = image_of_text[torch.randperm(num_texts, generator=generator)]
    images = sign_rows(num_images, generator)
    flips = torch.where(torch.rand(num_texts, 16, generator=generator) < 0.2, -1.0, 1.0)
    texts = images[image_of_text] * flips
    found = recall_at_k(images, texts, image_of_text, KS, chunk_rows)
    expected = brute_force(images, texts, image_of_text)
    assert (found.text_to_image, found.image_to_text, found.num_ties) == expected
    assert 0 < found.mean_recall < 1 and found.num_ties > 10
    assert (found.num_images, found.num_texts) == (num_images, num_texts)


def test_recall_is_one_of_equal_rows_and_zero_of_a_collapsed_encoder() -> None:
    rows = torch.randn(203, 67, generator=torch.Generator().manual_seed(0))
    same = torch.arange(203)
    assert recall_at_k(rows, rows.clone(), same).mean_recall == 1
    collapsed = rows[:1].expand(203, -1)
    for images, texts in ((rows, collapsed), (collapsed, rows), (collapsed, collapsed)):
        found = recall_at_k(images, texts, same, chunk_rows=50)
        constant_side = found.text_to_image if images is collapsed else found.image_to_text
        assert set(constant_side.values()) == {0.0}
    assert found.mean_recall == 0 and found.num_ties == 2 * 203


def test_recall_of_unrelated_rows_is_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(2000, 64, generator=generator) for _ in range(2))
    found = recall_at_k(images, texts, torch.arange(2000))
    for k in KS:
        for share in (found.text_to_image[k], found.image_to_text[k]):
            assert share == pytest.approx(k / 2000, abs=4 * (k / 2000 / 2000) ** 0.5)


def test_neither_chunks_nor_order_nor_length_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(30, 24, generator=generator)
    image_of_text = torch.arange(90) // 3
    texts = images[image_of_text] + 2 * torch.randn(90, 24, generator=generator)
    first = recall_at_k(images, texts, image_of_text)
    order = torch.randperm(90, generator=generator)
    lengths = 0.1 + torch.rand(90, 1, generator=generator)
    second = recall_at_k(images, (texts * lengths)[order], image_of_text[order], chunk_rows=11)
    assert first.metrics() == second.metrics()
    assert torch.equal(first.text_ranks[order], second.text_ranks)


def test_scores_are_taken_in_fp32_whatever_the_rows_came_in() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 32, generator=generator).bfloat16()
    assert recall_at_k(rows, rows, torch.arange(500)).mean_recall == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda i, t, p: t[3].fill_(float("nan")), "embedding of text 3 is not finite"),
        (lambda i, t, p: i[2].fill_(float("inf")), "embedding of picture 2 is not finite"),
        (lambda i, t, p: i[1].zero_(), "embedding of picture 1 is zero"),
        (lambda i, t, p: p[4].fill_(9), "text 4 belongs to picture 9, and there are 5"),
        (lambda i, t, p: p[4].fill_(0), "picture 4 has no text"),
    ],
)
def test_what_cannot_be_ranked_is_refused(spoil, message: str) -> None:
    images, texts, places = torch.ones(5, 3), torch.ones(5, 3), torch.arange(5)
    spoil(images, texts, places)
    with pytest.raises(ValueError, match=message):
        recall_at_k(images, texts, places)


def test_other_spaces_and_unpaired_texts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not of shapes \(5, 3\) and \(5, 4\)"):
        recall_at_k(torch.ones(5, 3), torch.ones(5, 4), torch.arange(5))
    with pytest.raises(ValueError, match="5 texts name"):
        recall_at_k(torch.ones(5, 3), torch.ones(5, 3), torch.arange(4))


@pytest.fixture(scope="module")
def recall() -> Recall:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, 16, generator=generator)
    image_of_text = torch.arange(400) // 2
    texts = images[image_of_text] + 1.2 * torch.randn(400, 16, generator=generator)
    return recall_at_k(images, texts, image_of_text)


def test_intervals_hold_the_figure_and_are_as_wide_as_a_proportions(recall: Recall) -> None:
    intervals = recall.intervals(400, seed=1)
    assert intervals == recall.intervals(400, seed=1)
    figures = {**recall.metrics(), "mean_recall": recall.mean_recall}
    assert intervals.keys() == figures.keys()
    assert all(low < figures[name] < high for name, (low, high) in intervals.items())
    share = figures["text_retrieval_recall@5"]
    low, high = intervals["text_retrieval_recall@5"]
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / 200) ** 0.5, rel=0.2)


def test_results_are_lines_that_are_never_rewritten(recall: Recall, tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    settings = {"dataset": "d", "model": "m", "pretrained": "p", "captions": "all"}
    settings |= {"precision": "fp32", "dataset_sha256": None, "seed": 0, "wall_s": 1.5}
    for language in ("de", "zh"):
        append_result(path, result_json(recall, language=language, num_bootstrap=5, **settings))
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["language"], second["language"]) == ("de", "zh")
    assert first["metrics"] == {
        f"{way}_retrieval_recall@{k}": share
        for way, shares in (("image", recall.text_to_image), ("text", recall.image_to_text))
        for k, share in shares.items()
    }
    assert first["protocol"] == {"captions": "all", "ties": "pessimistic"}
    assert (first["n_images"], first["n_texts"], first["n_ties"]) == (200, 400, recall.num_ties)
    assert first["mean_recall"] == pytest.approx(sum(first["metrics"].values()) / 6)
    assert set(first) >= {"task", "precision", "dataset_sha256", "versions", "seed", "wall_s"}
    assert len(first["interval95"]["mean_recall"]) == 2
