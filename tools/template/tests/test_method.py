"""The method in one file: its loss by hand and by equation, what its gradient reaches."""

import pytest
import torch

from crosslingual.frozen.schedule import drop_captions
from template.method import TextSpaceAdapter, build_adapter, text_space_loss

WIDTHS = {"encoder_width": 6, "width": 5, "hidden_width": 7, "pooled_width": None}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_loss_of_two_rows_by_hand() -> None:
    student = torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]]])
    teacher = torch.tensor([[[0.0, 4.0]], [[0.0, 0.0]]])
    loss, parts = text_space_loss(student, teacher, torch.tensor([True, False]))
    assert loss.item() == pytest.approx((1 + 4) / 2)
    assert parts["states"].item() == loss.item() and set(parts) == {"states"}


def test_loss_is_the_equation() -> None:
    student, teacher = draw(4, 3, 5), draw(4, 3, 5, seed=1)
    pooled, teacher_pooled = draw(4, 2), draw(4, 2, seed=1)
    rows = torch.tensor([True, False, True, True])
    loss, parts = text_space_loss(student, teacher, rows, pooled, teacher_pooled)
    states = torch.stack([((student[i] - teacher[i]) ** 2).mean() for i in (0, 2, 3)]).mean()
    vectors = torch.stack([((pooled[i] - teacher_pooled[i]) ** 2).mean() for i in (0, 2, 3)]).mean()
    torch.testing.assert_close(loss, states + vectors)
    torch.testing.assert_close(parts, {"states": states, "pooled": vectors})


def test_loss_is_zero_when_student_equals_teacher() -> None:
    states = draw(2, 3, 5)
    assert text_space_loss(states, states.clone(), torch.ones(2, dtype=torch.bool))[0] == 0


def test_rows_without_a_teacher_do_not_count() -> None:
    student, teacher = draw(3, 3, 5), draw(3, 3, 5, seed=1)
    rows = torch.tensor([True, False, True])
    loss, _ = text_space_loss(student, teacher, rows)
    student[1] += 100
    torch.testing.assert_close(text_space_loss(student, teacher, rows)[0], loss)


def test_a_batch_without_teachers_gives_zero_and_keeps_its_graph() -> None:
    adapter = build_adapter(WIDTHS)
    states, _ = adapter(draw(2, 3, 6))
    loss, _ = text_space_loss(states, draw(2, 3, 5), torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert all(torch.all(parameter.grad == 0) for parameter in adapter.parameters())


def test_bf16_states_are_compared_in_fp32() -> None:
    student, teacher = draw(2, 3, 5).bfloat16(), draw(2, 3, 5, seed=1).bfloat16()
    rows = torch.ones(2, dtype=torch.bool)
    loss, _ = text_space_loss(student, teacher, rows)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, text_space_loss(student.float(), teacher.float(), rows)[0])


def test_states_of_another_length_are_refused_with_the_setting_to_change() -> None:
    rows = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="set --max_length 77"):
        text_space_loss(draw(2, 32, 5), draw(2, 77, 5), rows)


@pytest.mark.parametrize("pooled_width", [None, 4])
def test_gradient_reaches_every_parameter(pooled_width: int | None) -> None:
    adapter = build_adapter({**WIDTHS, "pooled_width": pooled_width})
    states, pooled = adapter(draw(2, 3, 6))
    teacher_pooled = None if pooled is None else draw(2, 4)
    rows = torch.ones(2, dtype=torch.bool)
    text_space_loss(states, draw(2, 3, 5), rows, pooled, teacher_pooled)[0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())


def test_adapter_is_token_wise() -> None:
    adapter, states = TextSpaceAdapter(6, 5, 7, 4), draw(2, 3, 6)
    order = [2, 0, 1]
    mapped, pooled = adapter(states)
    mapped_in_order, pooled_in_order = adapter(states[:, order])
    torch.testing.assert_close(mapped_in_order, mapped[:, order])
    torch.testing.assert_close(pooled_in_order, pooled)


def test_dropped_rows_hold_the_empty_prompt() -> None:
    states, null = draw(2, 3, 6), draw(3, 6, seed=1)
    mixed = drop_captions(states, null, torch.tensor([True, False]))
    assert torch.equal(mixed[0], null) and torch.equal(mixed[1], states[1])
