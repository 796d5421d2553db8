"""Symmetric InfoNCE over the batch of all ranks: exact, in chunks, no number computed more than
twice.

    L = -1/(2B) sum_i [log softmax_j(s x_i.y_j)_i + log softmax_j(s y_i.x_j)_i]

The usual form holds the B x B similarities, their two softmaxes and the graph between them: at the
published batch of 16,384 that is gigabytes. Here one chunk of rows is in memory at a time. A first
pass computes the log-sums of rows and columns. The second has the gradient of the similarities in
closed form, softmax over the row plus softmax over the column minus twice the diagonal, and applies
it at once to both sides. That is two products for the loss and two for its gradient, whatever the
number of ranks, and memory of rows x batch. The gradient is that of the one global batch: the parts
that other ranks' rows contribute to this rank's columns are summed here.

With several positives a row, those of the same id, the loss is what the authors fine-tune mCLIP
with on COCO: each positive adds its own -log softmax, so that a row with n of them counts n times.

Source: InfoNCE, arXiv 1807.03748; both directions over all ranks, arXiv 2103.00020 (CLIP).
"""

import torch
import torch.distributed as dist
from torch import Tensor

# B rows of all ranks, b rows of this one, C rows of a chunk, D width


def _num_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _gather(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the ranks' order; each rank has as many."""
    if _num_ranks() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(_num_ranks())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _GlobalInfoNCE(torch.autograd.Function):
    """The loss of this rank's rows and columns; the mean over ranks is the loss of the batch."""

    @staticmethod
    def forward(
        ctx, x_bD: Tensor, y_bD: Tensor, scale: Tensor, chunk_rows: int, ids_b: Tensor | None
    ) -> Tensor:
        """Computes the loss and its gradients, which use the same chunks."""
        num_local, rank = len(x_bD), dist.get_rank() if dist.is_initialized() else 0
        y_BD = _gather(y_bD)
        own = slice(rank * num_local, (rank + 1) * num_local)
        starts = range(0, num_local, chunk_rows)

        ids_B = None if ids_b is None else _gather(ids_b)
        right_b, counts_b = (x_bD * y_bD).sum(dim=1) * scale, x_bD.new_ones(num_local)
        row_lse_b = x_bD.new_empty(num_local)
        column_lse_B = x_bD.new_full((len(y_BD),), -torch.inf)
        for start in starts:
            scores_CB = torch.mm(x_bD[start : start + chunk_rows], y_BD.T).mul_(scale)
            row_lse_b[start : start + chunk_rows] = scores_CB.logsumexp(dim=1)
            column_lse_B = torch.logaddexp(column_lse_B, scores_CB.logsumexp(dim=0))
            if ids_b is not None:
                rows = slice(start, start + chunk_rows)
                is_same_CB = ids_b[rows, None] == ids_B
                counts_b[rows] = is_same_CB.sum(dim=1).float()
                right_b[rows] = (scores_CB * is_same_CB).sum(dim=1)
        if _num_ranks() > 1:
            column_lse_B = _gather(column_lse_B[None]).logsumexp(dim=0)
        loss = ((row_lse_b + column_lse_B[own]) / 2 * counts_b - right_b).mean()
        if not any(ctx.needs_input_grad):
            return loss

        counts_B = None if ids_b is None else _gather(counts_b)
        grad_x_bD, grad_y_BD = torch.empty_like(x_bD), torch.zeros_like(y_BD)
        grad_scale = torch.zeros_like(scale)
        for start in starts:
            rows = slice(start, min(start + chunk_rows, num_local))
            x_CD = x_bD[rows]
            cosines_CB = torch.mm(x_CD, y_BD.T)
            scores_CB = cosines_CB * scale
            grad_CB = (scores_CB - row_lse_b[rows, None]).exp_()
            column_CB = scores_CB.sub_(column_lse_B).exp_()
            if ids_b is None:
                grad_CB += column_CB
                diagonal = torch.arange(rows.start, rows.stop, device=x_CD.device)
                grad_CB[diagonal - start, own.start + diagonal] -= 2
            else:
                grad_CB *= counts_b[rows, None]
                grad_CB += column_CB * counts_B - 2 * (ids_b[rows, None] == ids_B)
            grad_scale += torch.dot(grad_CB.flatten(), cosines_CB.flatten())
            torch.mm(grad_CB, y_BD, out=grad_x_bD[rows])
            grad_y_BD.addmm_(grad_CB.T, x_CD)
        if _num_ranks() > 1:
            dist.all_reduce(grad_y_BD)
        ctx.save_for_backward(
            grad_x_bD.mul_(scale / (2 * num_local)),
            grad_y_BD[own] * (scale / (2 * num_local)),
            grad_scale / (2 * num_local),
        )
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Returns the gradients that `forward` computed."""
        grad_x_bD, grad_y_bD, grad_scale = ctx.saved_tensors
        return grad * grad_x_bD, grad * grad_y_bD, grad * grad_scale, None, None


def info_nce(
    x_bD: Tensor,
    y_bD: Tensor,
    scale: Tensor,
    *,
    chunk_rows: int = 1024,
    ids_b: Tensor | None = None,
) -> Tensor:
    """The symmetric InfoNCE of pairs (x_i, y_i); all other pairs of all ranks are negatives, except
    those of the same id.

    Every rank must call it, all with the same number of rows. Averaged over the ranks, as
    data-parallel engines average gradients, its gradient is that of the global batch.

    Args:
        x_bD: this rank's rows (b, D), L2-normalised, fp32.
        y_bD: the rows' partners (b, D), L2-normalised, fp32.
        scale: the inverse temperature that cosines are multiplied by, of shape () or (1,).
        chunk_rows: rows of the similarity matrix that are in memory at a time.
        ids_b: what a row shows, of dtype int64; rows of the same id are positives of each other.
            None if each row has its partner alone.

    Returns:
        This rank's part of the loss, of shape ().

    Raises:
        ValueError: the shapes differ, or rows are not fp32.
    """
    if x_bD.shape != y_bD.shape or x_bD.ndim != 2:
        raise ValueError(f"pairs of rows are needed, not {(*x_bD.shape,)} and {(*y_bD.shape,)}")
    if x_bD.dtype != torch.float32 or y_bD.dtype != torch.float32:
        raise ValueError(f"InfoNCE is taken in fp32, not in {x_bD.dtype} and {y_bD.dtype}")
    return _GlobalInfoNCE.apply(x_bD, y_bD, scale.reshape(()).float(), chunk_rows, ids_b)
