"""The losses of the paper by hand, by equation and by what must not change them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pea.method import (
    pea_loss,
    seed_loss,
    x2i_distance,
)
from pea.optimizer import Muon, orthogonal
from pea.warm_start import warm_start_loss

# Outputs of teacher and student for 3 parallel rows and 2 native ones, and of two blocks.
NATIVE = torch.tensor([False, True, False, True, False])


def outputs(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(len(NATIVE), *shape, generator=generator)

    blocks = [[draw(3, 4, 4), draw(6, 2, 2)] for _ in range(2)]
    return {
        "student_eps": draw(4, 4, 4),
        "teacher_eps": draw(4, 4, 4),
        "target": draw(4, 4, 4),
        "student_blocks": blocks[0],
        "teacher_blocks": blocks[1],
        "native_B": NATIVE,
    }


def of_rows(given: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    return {
        name: [block[rows] for block in value] if isinstance(value, list) else value[rows]
        for name, value in given.items()
    }


def seed_form(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if not name.endswith("_blocks")}


def test_loss_of_two_rows_by_hand() -> None:
    """Row 0 is parallel: (1 + 4) / 2 to the teacher, blocks 1 and 4; row 1 native: (4 + 9) / 2."""

    def rows(*values: list[float]) -> Tensor:
        return torch.tensor(values)[:, :, None, None]

    loss, parts = pea_loss(
        student_eps=rows([1, 2], [3, 4]),
        teacher_eps=rows([0, 0], [9, 9]),
        target=rows([7, 7], [1, 1]),
        student_blocks=[rows([2.0], [5.0]), rows([3.0], [5.0])],
        teacher_blocks=[rows([1.0], [0.0]), rows([1.0], [0.0])],
        native_B=torch.tensor([False, True]),
    )
    assert loss.item() == pytest.approx(6.5 + 2.5 + 0.1 * (1 + 4))
    assert {name: part.item() for name, part in parts.items()} == {
        "native": 6.5,
        "output": 2.5,
        "feature": 5.0,
    }
    assert not any(part.requires_grad for part in parts.values())


def test_loss_equals_the_papers_equation() -> None:
    """With z as weights over single elements, in double precision: no code is shared."""
    given = outputs()
    z = NATIVE.double()
    terms = {"native": 0.0, "output": 0.0, "feature": 0.0}
    for i in range(len(NATIVE)):

        def squared(a: Tensor, b: Tensor, i: int = i) -> float:
            pairs = zip(a[i].flatten().tolist(), b[i].flatten().tolist(), strict=True)
            return sum((x - y) ** 2 for x, y in pairs) / a[i].numel()

        student, teacher = given["student_eps"], given["teacher_eps"]
        blocks = zip(given["student_blocks"], given["teacher_blocks"], strict=True)
        terms["native"] += z[i].item() * squared(student, given["target"]) / z.sum().item()
        weight = (1 - z[i].item()) / (1 - z).sum().item()
        terms["output"] += weight * squared(student, teacher)
        terms["feature"] += weight * sum(squared(s, t) for s, t in blocks)
    loss, parts = pea_loss(**given, feature_weight=0.3)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(terms, rel=1e-5)
    expected = terms["native"] + terms["output"] + 0.3 * terms["feature"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_loss_is_zero_when_student_equals_teacher() -> None:
    given = outputs()
    given |= {"student_eps": given["teacher_eps"], "student_blocks": given["teacher_blocks"]}
    loss, _ = pea_loss(**{**given, "native_B": torch.zeros(5, dtype=torch.bool)})
    assert loss.item() == 0.0


@pytest.mark.parametrize("loss_of", [pea_loss, lambda **given: seed_loss(**seed_form(given))])
def test_order_of_rows_and_copies_of_the_batch_do_not_matter(loss_of: Callable[..., Any]) -> None:
    """Copies leave means as they are: each term is divided by the count of its kind of row."""
    given = outputs()
    loss = loss_of(**given)[0].item()
    permuted = of_rows(given, torch.tensor([3, 0, 4, 1, 2]))
    twice = of_rows(given, torch.arange(5).repeat(2))
    assert loss_of(**permuted)[0].item() == pytest.approx(loss, rel=1e-6)
    assert loss_of(**twice)[0].item() == pytest.approx(loss, rel=1e-6)


def test_each_kind_of_row_is_normalised_by_its_own_count() -> None:
    """More native rows, copies of those there are, leave all three terms; the authors' code would
    not.
    """
    given = outputs()
    more_native = of_rows(given, torch.tensor([0, 1, 2, 3, 4, 1, 3, 1, 3]))
    assert pea_loss(**more_native)[0].item() == pytest.approx(pea_loss(**given)[0].item(), rel=1e-6)


def test_rows_of_the_other_kind_do_not_matter() -> None:
    """The teacher is not looked at on native rows, nor the noise on parallel ones."""
    given, other = outputs(), outputs(seed=1)
    native = NATIVE.view(-1, 1, 1, 1)
    changed = {
        **given,
        "teacher_eps": torch.where(native, other["teacher_eps"], given["teacher_eps"]),
        "target": torch.where(native, given["target"], other["target"]),
        "teacher_blocks": [
            torch.where(native, o, g)
            for g, o in zip(given["teacher_blocks"], other["teacher_blocks"], strict=True)
        ],
    }
    assert torch.equal(pea_loss(**changed)[0], pea_loss(**given)[0])
    teacher_alone = {**given, "teacher_eps": changed["teacher_eps"]}
    assert torch.equal(seed_loss(**seed_form(teacher_alone))[0], seed_loss(**seed_form(given))[0])


def test_batches_of_one_kind_have_zero_for_the_other_and_a_gradient() -> None:
    for is_native, zero in ((True, ("output", "feature")), (False, ("native",))):
        given = outputs()
        student = given["student_eps"].requires_grad_()
        loss, parts = pea_loss(**{**given, "native_B": torch.full((5,), is_native)})
        loss.backward()
        assert [name for name, part in parts.items() if part == 0.0] == sorted(
            zero, key=list(parts).index
        )
        assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_blocks_of_another_count_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        pea_loss(**{**outputs(), "teacher_blocks": []})


def test_seed_loss_equals_its_equation() -> None:
    """KL(teacher || student) of softmaxes over the positions of a channel, T^2, plus alpha MSE."""
    given, temperature = seed_form(outputs()), 2.0
    teacher, student = (
        (given[name].double().flatten(2) / temperature).exp()
        for name in ("teacher_eps", "student_eps")
    )
    p, q = teacher / teacher.sum(-1, keepdim=True), student / student.sum(-1, keepdim=True)
    kl = (p * (p / q).log()).sum(-1)[~NATIVE].mean() * temperature**2
    recon = (given["student_eps"] - given["target"]).double().pow(2).mean()
    loss, parts = seed_loss(**given, recon_weight=0.7, temperature=temperature)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert loss.item() == pytest.approx((kl + 0.7 * recon).item(), rel=1e-5)


def test_seed_kl_is_zero_at_equality_and_positive_elsewhere() -> None:
    for seed in range(5):
        given = seed_form(outputs(seed))
        assert seed_loss(**given)[1]["kl"].item() > 0
        equal = {**given, "student_eps": given["teacher_eps"]}
        assert seed_loss(**equal)[1]["kl"].item() == pytest.approx(0.0, abs=1e-6)


def test_x2is_distance_is_a_divergence_over_the_channels_of_each_position() -> None:
    """Against a plain transcription of the authors' code, and by its invariances."""
    student, teacher = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))

    def shares(x: Tensor) -> Tensor:
        mean, std = x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True)
        return ((x - mean) / std / 3).softmax(dim=-1)

    found = x2i_distance(student, teacher)
    authors = F.kl_div(shares(teacher).log(), shares(student), reduction="batchmean")
    assert found.shape == (3,) and found.mean() * 5 == pytest.approx(authors.item(), rel=1e-5)
    torch.testing.assert_close(x2i_distance(2 * student + 1, teacher), found)
    torch.testing.assert_close(x2i_distance(teacher, teacher), torch.zeros(3))
    pictures = (x.transpose(1, 2).unflatten(2, (1, 5)) for x in (student, teacher))
    torch.testing.assert_close(x2i_distance(*pictures), found)


def test_warm_start_loss_of_two_rows_by_hand() -> None:
    """Each row's error of 4 is divided by its teacher's variance, 2 and 8."""
    teacher = [torch.tensor([[[0.0, 2.0]], [[0.0, 4.0]]])]
    student = [teacher[0] + 2.0]
    for counts, expected in (([True, True], (4 / 2 + 4 / 8) / 2), ([False, True], 4 / 8)):
        loss, parts = warm_start_loss(student, teacher, torch.tensor(counts))
        assert loss.item() == parts["warm_start"].item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muons_updates_are_orthogonal_and_those_of_vectors_are_adams(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert 0.6 < singular.min() and singular.max() < 1.3
    matrix, ours, theirs = (nn.Parameter(torch.ones(size)) for size in (shape, (3,), (3,)))
    muon, adam = Muon([matrix, ours], lr=0.1), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0)
    for _ in range(3):
        matrix.grad = torch.randn(shape)
        ours.grad = theirs.grad = torch.randn(3)
        before = matrix.detach().clone()
        muon.step()
        adam.step()
        size = (matrix - before).square().mean().sqrt().item()
        assert size == pytest.approx(0.2 * 0.1, rel=0.3)  # as large as AdamW's
    torch.testing.assert_close(ours, theirs)
