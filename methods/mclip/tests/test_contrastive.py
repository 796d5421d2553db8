"""InfoNCE in chunks over ranks is the plain one over the whole batch."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from crosslingual_worlds.testing.fork_server import join_ranks, run_ranks
from mclip.contrastive import info_nce

NUM_ROWS, WIDTH = 24, 16


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Leaves: rows before normalisation, their partners, the logarithm of the scale."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(2, NUM_ROWS, WIDTH, generator=generator)
    x, y = rows[0], rows[0] + rows[1]
    return x.requires_grad_(), y.requires_grad_(), torch.tensor([1.7], requires_grad=True)


def plain(x: Tensor, y: Tensor, log_scale: Tensor) -> Tensor:
    """The equation as it stands, with the whole matrix."""
    scores = log_scale.exp() * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
    right = torch.arange(len(x))
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


PICTURES = torch.arange(NUM_ROWS) // 5 * 10**15  # no share of a rank ends where one of them does


def chunked(
    x: Tensor, y: Tensor, log_scale: Tensor, chunk_rows: int, ids: Tensor | None = None
) -> Tensor:
    rows = F.normalize(x, dim=1), F.normalize(y, dim=1)
    return info_nce(*rows, log_scale.exp(), chunk_rows=chunk_rows, ids_b=ids)


@pytest.mark.parametrize("chunk_rows", [1, 7, NUM_ROWS, 1000])
def test_loss_and_gradients_equal_the_plain_transcription(chunk_rows: int) -> None:
    leaves, twins = inputs(), inputs()
    loss = chunked(*leaves, chunk_rows)
    expected = plain(*twins)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    for leaf, twin in zip(leaves, twins, strict=True):
        torch.testing.assert_close(leaf.grad, twin.grad)


def of_pictures(x: Tensor, y: Tensor, log_scale: Tensor, pictures: Tensor) -> Tensor:
    """The loss of the authors' fine-tuning on COCO: each positive of a row counts."""
    scores = log_scale.exp() * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
    is_same = (pictures[:, None] == pictures).float()
    there, back = scores.log_softmax(dim=1), scores.T.log_softmax(dim=1)
    return -((there * is_same).sum(1).mean() + (back * is_same).sum(1).mean()) / 2


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_several_positives_a_row_equal_the_plain_transcription(chunk_rows: int) -> None:
    leaves, twins = inputs(), inputs()
    loss = chunked(*leaves, chunk_rows, PICTURES)
    expected = of_pictures(*twins, PICTURES)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    for leaf, twin in zip(leaves, twins, strict=True):
        torch.testing.assert_close(leaf.grad, twin.grad)


def test_two_orthogonal_pairs_by_hand() -> None:
    """Each row sees e^s against 1: the loss is log(1 + e^-s)."""
    rows, scale = torch.eye(2), torch.tensor([2.0])
    expected = torch.log1p(torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(info_nce(rows, rows, scale), expected)


def test_a_collapsed_space_costs_the_logarithm_of_the_batch() -> None:
    rows = F.normalize(torch.ones(8, 4), dim=1)
    torch.testing.assert_close(info_nce(rows, rows, torch.tensor([50.0])), torch.tensor(8.0).log())


def test_equals_open_clips_loss() -> None:
    open_clip = pytest.importorskip("open_clip")
    x, y, log_scale = inputs()
    theirs = open_clip.ClipLoss()(F.normalize(x, dim=1), F.normalize(y, dim=1), log_scale.exp())
    torch.testing.assert_close(chunked(x, y, log_scale, 5), theirs)


def work(rank: int, world_size: int, folder: Path) -> None:
    """A rank's share of the rows; its gradients go to a file as an engine would average them."""
    join_ranks(rank, world_size, folder)
    share = slice(rank * NUM_ROWS // world_size, (rank + 1) * NUM_ROWS // world_size)
    values = []
    for ids in (None, PICTURES[share]):
        x, y, log_scale = inputs()
        loss = chunked(x[share], y[share], log_scale, 5, ids)
        loss.backward()
        values += [loss.detach(), x.grad, y.grad, log_scale.grad]
    for value in values:
        dist.all_reduce(value)
        value /= world_size
    torch.save(values, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_mean_over_ranks_has_the_gradient_of_the_global_batch(
    world_size: int, tmp_path: Path
) -> None:
    run_ranks(__file__, world_size, tmp_path)
    expected = []
    for loss_of in (plain, lambda *leaves: of_pictures(*leaves, PICTURES)):
        leaves = inputs()
        loss = loss_of(*leaves)
        loss.backward()
        expected += [loss.detach(), *(leaf.grad for leaf in leaves)]
    for rank in range(world_size):
        for value, right in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            assert (value - right).norm() / right.norm() < 1e-5


def test_what_cannot_be_contrasted_is_refused() -> None:
    rows = torch.eye(4)
    with pytest.raises(ValueError, match="pairs of rows are needed"):
        info_nce(rows, rows[:2], torch.ones(1))
    with pytest.raises(ValueError, match=r"fp32, not in torch\.bfloat16"):
        info_nce(rows.bfloat16(), rows, torch.ones(1))


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
