"""The losses by hand, by equation and by what must not change them."""

import pytest
import torch
from torch import Tensor

from mulan.method import image_loss, language_loss, mulan_loss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


ALL = torch.ones(3, dtype=torch.bool)


def test_image_loss_of_two_rows_by_hand() -> None:
    """Errors 1, 2 and 3, 0: (1 + 4 + 9 + 0) / 4."""
    predicted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[:, :, None, None]
    target = torch.tensor([[0.0, 0.0], [0.0, 4.0]])[:, :, None, None]
    assert image_loss(predicted, target).item() == 3.5
    assert image_loss(predicted.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_language_loss_of_two_rows_by_hand() -> None:
    """Row 0: states (1 + 9) / 2, pooled 4; row 1 has no teacher and does not count."""
    states, english = torch.tensor([[[1.0, 3.0]], [[7.0, 7.0]]]), torch.zeros(2, 1, 2)
    pooled, english_pooled = torch.tensor([[2.0], [5.0]]), torch.zeros(2, 1)
    has_teacher = torch.tensor([True, False])
    assert language_loss((states, None), (english, None), has_teacher).item() == 5.0
    both = language_loss((states, pooled), (english, english_pooled), has_teacher)
    assert both.item() == 9.0


def test_language_loss_equals_its_equation() -> None:
    """1/R sum_r (mean_ld (s - e)^2 + mean_p (p - q)^2), element by element in Python."""
    states, english = draw(3, 4, 5), draw(3, 4, 5, seed=1)
    pooled, english_pooled = draw(3, 6, seed=2), draw(3, 6, seed=3)
    has_teacher = torch.tensor([True, False, True])
    expected = 0.0
    for row in (0, 2):
        for own, wanted in ((states, english), (pooled, english_pooled)):
            pairs = zip(own[row].flatten().tolist(), wanted[row].flatten().tolist(), strict=True)
            expected += sum((a - b) ** 2 for a, b in pairs) / own[row].numel() / 2
    loss = language_loss((states, pooled), (english, english_pooled), has_teacher)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_losses_are_zero_when_student_equals_teacher() -> None:
    states, pooled = draw(3, 4, 5), draw(3, 6)
    assert language_loss((states, pooled), (states, pooled), ALL).item() == 0.0
    assert image_loss(states, states).item() == 0.0


def test_order_of_rows_and_copies_of_the_batch_do_not_matter() -> None:
    states, english = draw(3, 4, 5), draw(3, 4, 5, seed=1)
    has_teacher = torch.tensor([True, False, True])
    loss = language_loss((states, None), (english, None), has_teacher).item()
    for rows in (torch.tensor([2, 0, 1]), torch.arange(3).repeat(2)):
        again = language_loss((states[rows], None), (english[rows], None), has_teacher[rows])
        assert again.item() == pytest.approx(loss, rel=1e-6)
        assert image_loss(states[rows], english[rows]).item() == pytest.approx(
            image_loss(states, english).item(), rel=1e-6
        )


def test_rows_without_a_teacher_do_not_matter_and_a_batch_of_them_has_a_gradient_of_zero() -> None:
    states, english = draw(3, 4, 5).requires_grad_(), draw(3, 4, 5, seed=1)
    has_teacher = torch.tensor([True, False, True])
    loss = language_loss((states, None), (english, None), has_teacher)
    other = english.clone()
    other[1] = 9.0
    assert torch.equal(loss, language_loss((states, None), (other, None), has_teacher))
    none = language_loss((states, None), (english, None), ~ALL)
    none.backward()
    assert none.item() == 0.0 and torch.equal(states.grad, torch.zeros_like(states))


def test_other_numbers_of_states_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="gives 4 states .* encoder 7: .* needs num_queries 7"):
        language_loss((draw(3, 4, 5), None), (draw(3, 7, 5), None), ALL)


def test_sum_weighs_the_language_term_alone() -> None:
    image, language = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0)
    loss, parts = mulan_loss(image, language, language_weight=0.5)
    assert loss.item() == 3.5
    assert {name: part.item() for name, part in parts.items()} == {"image": 2.0, "language": 3.0}
    assert not any(part.requires_grad for part in parts.values())
    assert mulan_loss(image, None, 0.5)[0].item() == 2.0
    alone, parts = mulan_loss(None, language, 0.5)
    assert alone.item() == 3.0 and list(parts) == ["language"]
