"""Stage 1's losses are the plain ones; no chunk, pad or rank changes them."""

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutput
from transformers.trainer_pt_utils import LabelSmoother

from crosslingual_worlds.testing.fork_server import join_ranks, run_ranks
from mclip.contrastive import info_nce
from mclip.stage1.step import enhancement_loss, nmt_loss, sentence_vectors

VOCABULARY, WIDTH = 40, 12


def tokens(num_tokens: int = 23) -> tuple[Tensor, Tensor, Tensor]:
    """States, labels and an output matrix, away from what initialisation would make."""
    generator = torch.Generator().manual_seed(5)
    states = 2 * torch.randn(num_tokens, WIDTH, generator=generator)
    labels = torch.randint(0, VOCABULARY, (num_tokens,), generator=generator)
    return states.requires_grad_(), labels, torch.randn(VOCABULARY, WIDTH, generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("chunk_tokens", [1, 7, 1000])
def test_nmt_loss_and_gradient_equal_torchs_cross_entropy(
    smoothing: float, chunk_tokens: int
) -> None:
    (states, labels, weight), (twin, *_) = tokens(), tokens()
    loss, parts = nmt_loss(
        states, labels, weight, label_smoothing=smoothing, chunk_tokens=chunk_tokens
    )
    expected = F.cross_entropy(twin @ weight.T, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(parts["nmt"], expected)
    torch.testing.assert_close(parts["nll"], F.cross_entropy(twin @ weight.T, labels))
    assert not any(part.requires_grad for part in parts.values())
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(states.grad, twin.grad)


def test_nmt_loss_equals_transformers_label_smoother() -> None:
    states, labels, weight = tokens()
    padded_labels = torch.cat((labels, labels.new_full((5,), -100)))
    scores = torch.cat((states, torch.randn(5, WIDTH))) @ weight.T
    expected = LabelSmoother(epsilon=0.1)(CausalLMOutput(logits=scores), padded_labels)
    torch.testing.assert_close(nmt_loss(states, labels, weight)[0], expected)


def test_states_of_zero_cost_the_logarithm_of_the_vocabulary() -> None:
    _, labels, weight = tokens()
    loss, parts = nmt_loss(torch.zeros(len(labels), WIDTH), labels, weight)
    assert loss.item() == pytest.approx(math.log(VOCABULARY), rel=1e-5)
    assert parts["nll"].item() == pytest.approx(math.log(VOCABULARY), rel=1e-5)


def test_scores_in_bf16_are_the_same_loss_to_two_digits() -> None:
    (states, labels, weight), (twin, *_) = tokens(), tokens()
    loss, _ = nmt_loss(states, labels, weight, scores_dtype=torch.bfloat16)
    expected, _ = nmt_loss(twin, labels, weight)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    loss.backward()
    expected.backward()
    assert states.grad.dtype == torch.float32
    assert (states.grad - twin.grad).norm() < 0.03 * twin.grad.norm()


def test_what_cannot_be_scored_is_refused() -> None:
    states, labels, weight = tokens()
    with pytest.raises(ValueError, match=r"\(23, 12\) do not fit 22 labels"):
        nmt_loss(states, labels[1:], weight)
    with pytest.raises(ValueError, match="gets no gradient here"):
        nmt_loss(states, labels, weight.requires_grad_())


def work(rank: int, world_size: int, folder: Path) -> None:
    """A rank's share, 5 tokens or 18; the mean of losses and of gradients goes to a file."""
    join_ranks(rank, world_size, folder)
    states, labels, weight = tokens()
    share = slice(0, 5) if rank == 0 else slice(5, None)
    loss, parts = nmt_loss(states[share], labels[share], weight)
    loss.backward()
    values = [loss.detach(), parts["nll"], states.grad]
    for value in values:
        dist.all_reduce(value)
        value /= 2
    torch.save(values, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_the_mean_over_ranks_is_the_mean_over_all_their_tokens(tmp_path: Path) -> None:
    run_ranks(__file__, 2, tmp_path)
    states, labels, weight = tokens()
    loss, parts = nmt_loss(states, labels, weight)
    loss.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, [loss.detach(), parts["nll"], states.grad])


def test_a_sentence_vector_is_the_unit_mean_over_its_tokens() -> None:
    states = torch.randn(2, 4, 6)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    expected = torch.stack((states[0, :3].mean(dim=0), states[1, 0]))
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(sentence_vectors(states, mask), expected)
    states[mask == 0] = 1e4
    torch.testing.assert_close(sentence_vectors(states, mask), expected)
    assert sentence_vectors(states.bfloat16(), mask.bool()).dtype == torch.float32


def test_enhancement_is_nmt_plus_the_weight_times_ctl() -> None:
    states, labels, weight = tokens()
    source, target = F.normalize(torch.randn(2, 5, 8), dim=-1)
    nmt, _ = nmt_loss(states, labels, weight)
    ctl = info_nce(source, target, torch.tensor(10.0))
    loss, parts = enhancement_loss(states, labels, source, target, weight)
    torch.testing.assert_close(loss, nmt + 2.0 * ctl)
    torch.testing.assert_close((parts["nmt"], parts["ctl"]), (nmt.detach(), ctl))
    for vectors, ctl_weight in (((None, None), 2.0), ((source, target), 0.0)):
        alone, parts = enhancement_loss(states, labels, *vectors, weight, ctl_weight=ctl_weight)
        assert torch.equal(alone, nmt) and "ctl" not in parts


def test_the_released_scale_is_that_of_the_authors_code() -> None:
    """fairseq divides by the tokens what the code sums: NMT, and CTL x tokens / sentences."""
    states, labels, weight = tokens()
    source, target = F.normalize(torch.randn(2, 6, 8), dim=-1)
    log_p = (states @ weight.T).log_softmax(dim=-1)
    right, smooth = -log_p.gather(1, labels[:, None]).sum(), -log_p.sum() / VOCABULARY
    scores, places = source @ target.T / 0.1, torch.arange(6)
    ctl = (F.cross_entropy(scores, places) + F.cross_entropy(scores.T, places)) / 2
    theirs = 0.9 * right + 0.1 * smooth + 2.0 * ctl * len(labels) / len(source)
    loss, _ = enhancement_loss(states, labels, source, target, weight, ctl_scale="released")
    torch.testing.assert_close(loss, theirs / len(labels))
    with pytest.raises(ValueError, match="ctl_scale must be paper or released"):
        enhancement_loss(states, labels, source, target, weight, ctl_scale="sum")


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))


def test_sentence_vectors_are_fp32_means_under_bf16_too() -> None:
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = sentence_vectors(states, mask)
    means = torch.stack(
        [row[kept].float().mean(dim=0) for row, kept in zip(states, mask, strict=True)]
    )
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, means / means.norm(dim=1, keepdim=True))
