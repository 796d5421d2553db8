"""Where right candidates stand among all, by exact scores, a chunk of queries at a time."""

import torch
from torch import Tensor

# Q queries, C candidates, R right pairs of them, D width


def ranks(
    queries_QD: Tensor, candidates_CD: Tensor, query_R: Tensor, right_R: Tensor, chunk_rows: int
) -> tuple[Tensor, int]:
    """Wrong candidates ahead of each query's best right one (Q,), and how many queries have ties.

    Args:
        queries_QD: unit rows.
        candidates_CD: unit rows.
        query_R: the queries of the right pairs, sorted.
        right_R: the candidates of the right pairs.
        chunk_rows: queries at a time.
    """
    unique_CD, group_C = _without_copies(candidates_CD)
    starts = range(0, len(queries_QD), chunk_rows)
    bounds = torch.searchsorted(query_R, torch.tensor([*starts, len(queries_QD)]).to(query_R))
    shape = (min(chunk_rows, len(queries_QD)), len(candidates_CD))
    scores_buffer, marks_buffer = (queries_QD.new_empty(shape) for _ in range(2))
    found, num_ties = [], 0
    for number, start in enumerate(starts):
        asked_QD = queries_QD[start : start + chunk_rows]
        scores_QC, marks_QC = scores_buffer[: len(asked_QD)], marks_buffer[: len(asked_QD)]
        if group_C is None:
            torch.mm(asked_QD, unique_CD.T, out=scores_QC)
        else:
            torch.index_select(asked_QD @ unique_CD.T, 1, group_C, out=scores_QC)
        pairs = slice(int(bounds[number]), int(bounds[number + 1]))
        rows, columns = query_R[pairs] - start, right_R[pairs]
        best_Q1 = scores_QC.new_full((len(asked_QD),), -torch.inf)
        best_Q1 = best_Q1.scatter_reduce_(0, rows, scores_QC[rows, columns], "amax")[:, None]
        scores_QC[rows, columns] = -torch.inf  # the other right ones are not ahead of it
        # marks in fp32 are counted six times as fast as bools, and exactly up to 2^24 candidates
        at_or_above_Q = torch.ge(scores_QC, best_Q1, out=marks_QC).sum(dim=1)
        above_Q = torch.gt(scores_QC, best_Q1, out=marks_QC).sum(dim=1)
        found.append(at_or_above_Q.long())
        num_ties += int((at_or_above_Q > above_Q).count_nonzero())
    return torch.cat(found), num_ties


def _without_copies(rows_CD: Tensor) -> tuple[Tensor, Tensor | None]:
    """The different rows, and of each row which of them it is (None if all differ).

    Equal candidates must have equal scores, which a matrix product does not promise: its edges are
    computed by other instructions.
    """
    first_of: dict[bytes, int] = {}
    group = [first_of.setdefault(row.tobytes(), len(first_of)) for row in rows_CD.cpu().numpy()]
    if len(first_of) == len(rows_CD):
        return rows_CD, None
    group_C = torch.tensor(group, device=rows_CD.device)
    chosen = torch.empty(len(first_of), dtype=torch.int64, device=rows_CD.device)
    chosen[group_C] = torch.arange(len(group), device=rows_CD.device)
    return rows_CD[chosen], group_C
