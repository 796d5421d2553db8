"""The parts of the paper by hand, by equation, against libraries, and by what must not matter."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from crosslingual.frozen.families.sd import UNetDenoiser
from iap.method import (
    AttentiveFeatures,
    attend,
    choose_layers,
    expand_states,
    iap_loss,
    row_distances,
    split_heads,
    text_space_loss,
)

WIDTH, ROWS, TOKENS = 6, 3, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    """Seven cross-attentions: 2 down, 1 mid, 4 up, on grids of 8 x 8 and 4 x 4."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )
    return unet.eval().requires_grad_(False)


def chosen(unet: nn.Module, layers: list[str]) -> list[nn.Module]:
    every = UNetDenoiser(unet, resolution=64).cross_attentions()
    found = choose_layers(every, layers)
    assert all(every[number][1] is attention for number, attention in found)
    return [attention for _, attention in found]


def run_unet(unet: nn.Module) -> Callable[..., Tensor]:
    return lambda latents, timesteps, states: unet(latents, timesteps, states).sample


def test_cross_attentions_stand_in_the_order_of_the_pass(unet: nn.Module) -> None:
    order, handles = [], []
    for _, module in (item for item in unet.named_modules() if item[0].endswith("attn2")):
        handles.append(module.register_forward_hook(lambda m, *_: order.append(m)))
    unet(draw(1, 4, 8, 8), torch.tensor([3]), draw(1, TOKENS, WIDTH))
    for handle in handles:
        handle.remove()
    every = chosen(unet, ["all"])
    assert every == order and len(every) == 7
    assert chosen(unet, ["up", "down"]) == [*every[:2], *every[3:]]
    assert chosen(unet, ["mid"]) == chosen(unet, ["2"]) == [every[2]]
    assert chosen(unet, ["6", "0", "6"]) == [every[0], every[6]]


@pytest.mark.parametrize(
    ("layers", "name"), [(["middle"], "'middle'"), (["7"], "'7'"), (["-1"], "'-1'")]
)
def test_a_layer_that_is_not_there_is_an_error(
    unet: nn.Module, layers: list[str], name: str
) -> None:
    with pytest.raises(ValueError, match=f"no cross-attention {name}.* down, mid, up, or 0 to 6"):
        chosen(unet, layers)


def test_no_layers_are_an_error(unet: nn.Module) -> None:
    with pytest.raises(ValueError, match="layers is empty"):
        chosen(unet, [])


def test_what_is_kept_is_what_diffusers_computes_and_the_prediction_stays(unet: nn.Module) -> None:
    """Its own processor, read by hooks, gives the same queries, outputs and prediction."""
    given = draw(2, 4, 8, 8), torch.tensor([10, 900]), draw(2, TOKENS, WIDTH, seed=1)
    every, outputs, queries, handles = chosen(unet, ["all"]), [], [], []
    processors = [module.processor for module in every]
    for module in every:
        handles.append(module.register_forward_hook(lambda *a: outputs.append(a[-1])))
        handles.append(module.to_q.register_forward_hook(lambda *a: queries.append(a[-1])))
    expected = unet(*given).sample
    for handle in handles:
        handle.remove()
    features = AttentiveFeatures(run_unet(unet), every)
    torch.testing.assert_close(features.run(*given, stop_early=False), expected)
    for ours, theirs in zip(features.outputs, outputs, strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(features.queries, queries, strict=True):
        torch.testing.assert_close(ours.transpose(1, 2).flatten(2), theirs)
    kept = list(features.outputs)
    assert features.run(*given, stop_early=True) is None
    assert all(torch.equal(a, b) for a, b in zip(features.outputs, kept, strict=True))
    for module, processor in zip(every, processors, strict=True):
        module.set_processor(processor)


def test_a_pass_ends_after_the_last_chosen_layer(unet: nn.Module) -> None:
    calls = []
    features = AttentiveFeatures(run_unet(unet), chosen(unet, ["1"]))
    handle = unet.mid_block.register_forward_hook(lambda *_: calls.append("mid"))
    given = draw(1, 4, 8, 8), torch.tensor([3]), draw(1, TOKENS, WIDTH)
    features.run(*given, stop_early=True)
    assert not calls and len(features.outputs) == 1
    features.run(*given, stop_early=False)
    assert calls and len(features.outputs) == 1
    handle.remove()


def test_attention_equals_its_formula_and_its_gradient_reaches_the_text_alone(
    unet: nn.Module,
) -> None:
    """softmax(Q K^T / sqrt(d)) V W_o + b, head by head."""
    layer = chosen(unet, ["2"])[0]
    states = draw(2, TOKENS, WIDTH).requires_grad_()
    hidden = draw(2, 9, 16, seed=1)
    found = attend(layer, split_heads(layer.to_q(hidden), layer.heads), states)
    q, k, v = layer.to_q(hidden), layer.to_k(states), layer.to_v(states)
    size = 16 // layer.heads
    heads = []
    for head in range(layer.heads):
        cut = slice(head * size, (head + 1) * size)
        weights = (q[..., cut] @ k[..., cut].mT / math.sqrt(size)).exp()
        heads.append(weights / weights.sum(-1, keepdim=True) @ v[..., cut])
    expected = torch.cat(heads, -1) @ layer.to_out[0].weight.T + layer.to_out[0].bias
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert states.grad.abs().sum(-1).min() > 0
    assert all(parameter.grad is None for parameter in unet.parameters())


@pytest.mark.parametrize("times", [1, 4])
def test_a_state_that_stands_many_times_weighs_as_much_as_its_copies(
    unet: nn.Module, times: int
) -> None:
    layer = chosen(unet, ["0"])[0]
    query, states = draw(2, layer.heads, 9, 8 // layer.heads), draw(2, TOKENS, WIDTH, seed=1)
    copies = expand_states(states, times)
    assert copies.shape[1] == TOKENS + times - 1
    assert all(torch.equal(copies[:, i], states[:, -1]) for i in range(TOKENS, copies.shape[1]))
    torch.testing.assert_close(attend(layer, query, states, times), attend(layer, query, copies))


def features_of(seed: int) -> list[Tensor]:
    return [draw(ROWS, 4, 3, seed=seed), draw(ROWS, 2, 5, seed=seed + 1)]


ALL = torch.ones(ROWS, dtype=torch.bool)


def test_loss_by_hand() -> None:
    """One layer of two rows, the second without a teacher: ((1 - 3)^2 + (2 - 1)^2) / 2 = 2.5, by
    the teacher's variance 2 it is 1.25.
    """
    student = [torch.tensor([[[1.0, 2.0]], [[7.0, 7.0]]])]
    teacher = [torch.tensor([[[3.0, 1.0]], [[0.0, 5.0]]])]
    rows = torch.tensor([True, False])
    raw, parts = iap_loss(student, teacher, rows, normalise=False)
    assert raw.item() == pytest.approx(2.5) and parts["attention"].item() == pytest.approx(2.5)
    assert iap_loss(student, teacher, rows)[0].item() == pytest.approx(1.25)
    eps = torch.zeros(2, 1, 1, 1), torch.tensor([3.0, 8.0]).view(2, 1, 1, 1)
    noise = {"student_eps": eps[0], "teacher_eps": eps[1], "noise_weight": 0.5}
    both, parts = iap_loss(student, teacher, rows, **noise)
    assert both.item() == pytest.approx(1.25 + 0.5 * 9) and parts["noise"].item() == 9.0
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("distance", ["mse", "cosine", "smooth_l1"])
@pytest.mark.parametrize("normalise", [True, False])
def test_loss_equals_its_equation_element_by_element(distance: str, normalise: bool) -> None:
    student, teacher, total = features_of(0), features_of(10), 0.0
    for s, t in zip(student, teacher, strict=True):
        for row in range(ROWS):
            scale = t[row].std().item() if normalise and distance != "cosine" else 1.0
            values = []
            for a, b in zip(s[row], t[row], strict=True):
                if distance == "cosine":
                    values.append(1 - (a @ b / (a.norm() * b.norm())).item())
                    continue
                for x, y in zip(a.tolist(), b.tolist(), strict=True):
                    gap = abs(x - y) / scale
                    is_linear = distance == "smooth_l1" and gap >= 1
                    halved = 0.5 * gap**2 if distance == "smooth_l1" else gap**2
                    values.append(gap - 0.5 if is_linear else halved)
            total += sum(values) / len(values) / ROWS / len(student)
    loss, _ = iap_loss(student, teacher, ALL, distance=distance, normalise=normalise)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_loss_is_zero_when_both_languages_give_the_same() -> None:
    for distance in ("mse", "smooth_l1", "cosine"):
        loss, _ = iap_loss(features_of(0), features_of(0), ALL, distance=distance)
        assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("distance", ["mse", "cosine", "smooth_l1"])
def test_rows_count_alone_and_layers_alike(distance: str) -> None:
    """Order, copies, rows without a teacher and a layer's scale do not matter."""
    student, teacher = features_of(0), features_of(10)

    def loss_of(rows: list[int], has_teacher: list[bool], scale: float = 1.0) -> float:
        cut = [[layer[rows] for layer in side] for side in (student, teacher)]
        cut = [[side[0] * scale, side[1]] for side in cut]
        return iap_loss(*cut, torch.tensor(has_teacher), distance=distance)[0].item()

    expected = loss_of([0, 1], [True, True])
    assert loss_of([1, 0], [True, True]) == pytest.approx(expected, rel=1e-5)
    assert loss_of([0, 1, 0, 1], [True] * 4) == pytest.approx(expected, rel=1e-5)
    assert loss_of([0, 2, 1], [True, False, True]) == pytest.approx(expected, rel=1e-5)
    assert loss_of([0, 1], [True, True], scale=100.0) == pytest.approx(expected, rel=1e-4)


def test_without_any_teacher_the_loss_is_zero_and_has_a_gradient() -> None:
    student = [layer.requires_grad_() for layer in features_of(0)]
    loss, _ = iap_loss(student, features_of(10), ~ALL)
    loss.backward()
    assert loss.item() == 0.0 and all(layer.grad.abs().sum() == 0 for layer in student)


def test_a_constant_teacher_divides_by_nothing() -> None:
    distances = row_distances(draw(2, 3, 4), torch.zeros(2, 3, 4), "mse", True)
    assert distances.isfinite().all()


def test_layers_of_another_count_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        iap_loss(features_of(0), features_of(1)[:1], ALL)


def test_text_space_loss_is_the_mean_squared_error_of_rows_with_a_teacher() -> None:
    student, teacher = draw(ROWS, TOKENS, WIDTH), draw(ROWS, TOKENS, WIDTH, seed=1)
    rows = torch.tensor([True, False, True])
    loss, parts = text_space_loss(student, teacher, rows)
    torch.testing.assert_close(loss, F.mse_loss(student[rows], teacher[rows]))
    assert torch.equal(parts["text"], loss)


def test_text_space_loss_needs_as_many_positions() -> None:
    given: dict[str, Any] = {"student_BMD": draw(1, 4, 2), "teacher_BMD": draw(1, 7, 2)}
    with pytest.raises(ValueError, match="set --max_length 7"):
        text_space_loss(**given, has_teacher_B=torch.tensor([True]))
