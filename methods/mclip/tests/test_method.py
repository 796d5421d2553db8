"""The projectors against torch's own layers, the loss by hand and by equation, and what must not
change either.
"""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from crosslingual_worlds.testing.fork_server import join_ranks, run_ranks
from mclip.method import CLIPProjector, TriKD, XProjector, trikd_loss
from mclip.step import picture_ids

CONFIG = {"clip_width": 10, "width": 12, "num_layers": 2, "num_heads": 3, "ffn_width": 20}
CONFIG |= {"dropout": 0.0, "attention_dropout": 0.0}
LENGTHS = torch.tensor([5, 2, 7, 1, 5, 3])


def make(**changes: Any) -> TriKD:
    torch.manual_seed(0)
    return TriKD({**CONFIG, **changes})


def inputs(seed: int = 1) -> dict[str, Tensor]:
    """Six samples; the second and the last caption are not English."""
    generator = torch.Generator().manual_seed(seed)
    num_rows = len(LENGTHS)
    return {
        "image_embeds_BC": torch.randn(num_rows, 10, generator=generator),
        "text_embeds_BC": torch.randn(num_rows, 10, generator=generator),
        "states_TD": torch.randn(int(LENGTHS.sum()), 12, generator=generator),
        "lengths_B": LENGTHS,
    }


ENGLISH = torch.tensor([True, False, True, True, True, False])


def loss_of(trikd: TriKD, given: dict[str, Tensor], embed_batch_size: int = 0) -> Tensor:
    images, texts, captions, scale = trikd(**given, embed_batch_size=embed_batch_size)
    return trikd_loss(captions, images, texts, ENGLISH[: len(captions)], scale)[0]


def gradients(trikd: TriKD, loss: Tensor) -> dict[str, Tensor]:
    trikd.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in trikd.named_parameters()}


def torchs(x_projector: XProjector) -> nn.TransformerEncoder:
    """torch's encoder of the published shape with the same weights."""
    layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0, "gelu", batch_first=True)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for ours, twin in zip(x_projector.layers, theirs.layers, strict=True):
        joint = [ours.query, ours.key, ours.value]
        state = {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in joint]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in joint]),
        }
        pairs = {"self_attn.out_proj": ours.out, "linear1": ours.up, "linear2": ours.down}
        pairs |= {"norm1": ours.attention_norm, "norm2": ours.ffn_norm}
        for name, part in pairs.items():
            state |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
        twin.load_state_dict(state)
    return theirs.eval()


def spread(module: nn.Module) -> None:
    """Biases and norms away from 0 and 1, where a mistake in them would not show."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_vector_is_torchs_encoder_at_the_end_token_under_either_padding(side: str) -> None:
    x_projector, given = make().x_projector, inputs()
    spread(x_projector)
    rows = given["states_TD"].split(LENGTHS.tolist())
    longest = int(LENGTHS.max()) + 2
    padded, is_pad = torch.full((6, longest, 12), 9.0), torch.ones(6, longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        there = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        padded[number, there], is_pad[number, there] = row, False
    ends = LENGTHS - 1 if side == "right" else torch.full((6,), longest - 1)
    expected = torchs(x_projector)(padded, src_key_padding_mask=is_pad)[torch.arange(6), ends]
    found = x_projector(given["states_TD"], LENGTHS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_neighbours_and_their_order_never_change_a_vector() -> None:
    x_projector, given = make().x_projector, inputs()
    together = x_projector(given["states_TD"], LENGTHS)
    rows = given["states_TD"].split(LENGTHS.tolist())
    alone = torch.cat([x_projector(row, torch.tensor([len(row)])) for row in rows])
    torch.testing.assert_close(alone, together)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = x_projector(torch.cat([rows[row] for row in order.tolist()]), LENGTHS[order])
    torch.testing.assert_close(moved, together[order])


def test_tokens_other_than_the_last_are_heard() -> None:
    x_projector, given = make().x_projector, inputs()
    before = x_projector(given["states_TD"], LENGTHS)
    given["states_TD"][0] += 1
    after = x_projector(given["states_TD"], LENGTHS)
    assert not torch.allclose(after[0], before[0]) and torch.allclose(after[1:], before[1:])


def test_pictures_and_english_texts_share_one_map_without_a_bias() -> None:
    trikd, given = make(), inputs()
    given["text_embeds_BC"] = 3 * given["image_embeds_BC"]
    images, texts, captions, scale = trikd(**given)
    torch.testing.assert_close(images, texts)
    for rows in (images, captions):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(scale, torch.tensor([1 / 0.07]))
    assert dict(trikd.clip_projector.named_parameters()).keys() == {"weight"}
    bound = math.sqrt(6 / (10 + 12))
    assert 0.9 * bound < trikd.clip_projector.weight.abs().max() <= bound


def test_published_size_trains_14_568_960_parameters_and_a_temperature() -> None:
    published = {"clip_width": 512, "width": 768, "num_heads": 12, "ffn_width": 3072}
    with torch.device("meta"):
        trikd = TriKD({**CONFIG, **published})
        assert sum(p.numel() for p in trikd.parameters()) == 14_568_960 + 1
        assert sum(p.numel() for p in CLIPProjector(512, 768).parameters()) == 393_216
        assert sum(p.numel() for p in trikd.x_projector.layers[0].parameters()) == 7_087_872


def plain_loss(x: Tensor, images: Tensor, texts: Tensor, scales: tuple[float, float]) -> float:
    """The paper's equations over single numbers in double precision."""
    teachers = [t if english else i for t, i, english in zip(texts, images, ENGLISH, strict=True)]

    def contrast(others: list[Tensor], scale: float) -> float:
        num_rows = len(x)
        scores = [[scale * float(a.double() @ b.double()) for b in others] for a in x]
        total = 0.0
        for i in range(num_rows):
            row = sum(math.exp(scores[i][j]) for j in range(num_rows))
            column = sum(math.exp(scores[j][i]) for j in range(num_rows))
            total -= math.log(math.exp(scores[i][i]) / row)
            total -= math.log(math.exp(scores[i][i]) / column)
        return total / (2 * num_rows)

    return contrast(list(images), scales[0]) + 0.1 * contrast(teachers, scales[1])


@pytest.mark.parametrize(("ttc_scale", "second"), [("paper", 1 / 0.07), ("released", 2.6592600)])
def test_loss_equals_the_papers_equations(ttc_scale: str, second: float) -> None:
    images, texts, captions, scale = (value.detach() for value in make()(**inputs()))
    loss, parts = trikd_loss(captions, images, texts, ENGLISH, scale, ttc_scale=ttc_scale)
    expected = plain_loss(captions, images, texts, (1 / 0.07, second))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert parts["itc"] + 0.1 * parts["ttc"] == pytest.approx(loss.item())


def test_captions_of_one_picture_are_positives_of_each_other_in_the_authors_fine_tuning() -> None:
    images, texts, captions, scale = (value.detach() for value in make()(**inputs()))
    pictures = torch.arange(len(captions)) // 2
    is_same = (pictures[:, None] == pictures).float()

    def contrast(left: Tensor, right: Tensor, factor: float) -> Tensor:
        scores = factor * left @ right.T
        both = (s.log_softmax(1).mul(is_same).sum(1).mean() for s in (scores, scores.T))
        return -sum(both) / 2

    teacher = torch.where(ENGLISH[:, None], texts, images)
    expected = contrast(captions, images, scale.item())
    expected = expected + 0.1 * contrast(captions, teacher, math.log(1 / 0.01))
    options = {"ttc_scale": "released", "pictures_B": pictures}
    loss, _ = trikd_loss(captions, images, texts, ENGLISH, scale, **options)
    torch.testing.assert_close(loss, expected)
    ids = picture_ids(torch.randn(4, 10).repeat_interleave(3, dim=0))
    assert [ids.tolist().count(number) for number in ids.tolist()] == [3] * 12


def test_loss_of_two_samples_by_hand() -> None:
    """Captions e1 and e2, pictures the same, scale 2: ITC is log(1 + e^-2). The first caption is
    English and its text e2, the second's teacher is its picture e2: scores 0 0 / 2 2, the softmax
    of both rows is a half, that of the columns 1 / (1 + e^2) and e^2 / (1 + e^2).
    """
    rows = torch.eye(2)
    texts, english = rows[[1, 0]], torch.tensor([True, False])
    loss, parts = trikd_loss(rows, rows, texts, english, torch.tensor([2.0]))
    assert parts["itc"].item() == pytest.approx(math.log(1 + math.exp(-2)))
    column = math.log(1 + math.exp(2)) + math.log(1 + math.exp(-2))
    assert parts["ttc"].item() == pytest.approx((2 * math.log(2) + column) / 4)
    assert loss.item() == pytest.approx(parts["itc"].item() + 0.1 * parts["ttc"].item())


def test_the_order_of_samples_does_not_change_the_loss() -> None:
    images, texts, captions, scale = make()(**inputs())
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    moved = (rows[order] for rows in (captions, images, texts, ENGLISH))
    torch.testing.assert_close(
        trikd_loss(*moved, scale)[0], trikd_loss(captions, images, texts, ENGLISH, scale)[0]
    )


def test_a_weight_of_0_leaves_its_term_out() -> None:
    images, texts, captions, scale = make()(**inputs())
    given = (captions, images, texts, ENGLISH, scale)
    both = trikd_loss(*given, ttc_weight=0.5)[1]
    for name, other in (("itc", "ttc"), ("ttc", "itc")):
        loss, parts = trikd_loss(*given, **{f"{other}_weight": 0.0, f"{name}_weight": 0.5})
        assert parts.keys() == {name}
        torch.testing.assert_close(loss, 0.5 * both[name])
    with pytest.raises(ValueError, match="nothing would be learnt"):
        trikd_loss(*given, itc_weight=0, ttc_weight=0)
    with pytest.raises(ValueError, match="paper or released, not 'Paper'"):
        trikd_loss(*given, ttc_scale="Paper")


def test_gradients_reach_all_that_trains_and_nothing_else() -> None:
    """A bias of the keys shifts all scores of a query alike: its gradient is zero in truth, and
    rounding in float32: what it comes to depends on the processor.
    """
    trikd, given = make(), inputs()
    found = gradients(trikd, loss_of(trikd, given))
    largest = {name: gradient.abs().max().item() for name, gradient in found.items()}
    silent = {name for name, size in largest.items() if size < 1e-4 * max(largest.values())}
    assert silent == {f"x_projector.layers.{layer}.key.bias" for layer in (0, 1)}
    assert not any(value.requires_grad for value in given.values())


def test_the_released_scale_leaves_the_temperature_to_the_pictures() -> None:
    trikd = make()
    images, texts, captions, scale = trikd(**inputs())
    options = {"itc_weight": 0.0, "ttc_weight": 1.0, "ttc_scale": "released"}
    trikd_loss(captions, images, texts, ENGLISH, scale, **options)[0].backward()
    assert trikd.logit_scale.grad is None or not trikd.logit_scale.grad.any()
    assert trikd.x_projector.layers[0].query.weight.grad.any()


@pytest.mark.parametrize("embed_batch_size", [1, 4, 100])
def test_holding_few_activations_changes_no_gradient(embed_batch_size: int) -> None:
    trikd = make()
    expected = gradients(trikd, loss_of(trikd, inputs()))
    found = gradients(trikd, loss_of(trikd, inputs(), embed_batch_size))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_the_second_pass_over_activations_drops_what_the_first_one_dropped() -> None:
    trikd = make(dropout=0.4, attention_dropout=0.4)
    found = []
    for embed_batch_size in (0, 6):
        torch.manual_seed(3)
        found.append(gradients(trikd, loss_of(trikd, inputs(), embed_batch_size)))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)


def work(rank: int, world_size: int, folder: Path) -> None:
    """A rank's half of the samples; its gradients go to a file as an engine would average them."""
    join_ranks(rank, world_size, folder)
    trikd, given, half = make(), inputs(), slice(3 * rank, 3 * rank + 3)
    bounds = [0, *LENGTHS.cumsum(0).tolist()]
    tokens = slice(bounds[half.start], bounds[half.stop])
    states = given.pop("states_TD")[tokens]
    given = {name: value[half] for name, value in given.items()}
    images, texts, captions, scale = trikd(**given, states_TD=states)
    loss, _ = trikd_loss(captions, images, texts, ENGLISH[half], scale, chunk_rows=2)
    found = gradients(trikd, loss)
    for gradient in found.values():
        dist.all_reduce(gradient)
        gradient /= 2
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_have_the_gradient_of_one_on_the_whole_batch(tmp_path: Path) -> None:
    run_ranks(__file__, 2, tmp_path)
    trikd = make()
    expected = gradients(trikd, loss_of(trikd, inputs()))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        both = [
            torch.cat([value.flatten() for value in side.values()]) for side in (found, expected)
        ]
        assert (both[0] - both[1]).norm() / both[1].norm() < 1e-5


def test_what_does_not_fit_is_refused() -> None:
    given = inputs()
    with pytest.raises(ValueError, match="23 tokens in all do not fit 22"):
        make().x_projector(given["states_TD"][1:], LENGTHS)
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12"):
        make(num_heads=5)


def test_normalised_rows_are_fp32_under_autocast() -> None:
    trikd, given = make(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        images, texts, captions, scale = trikd(**given)
    assert {rows.dtype for rows in (images, texts, captions, scale)} == {torch.float32}
    expected = trikd(**given)[2]
    assert F.cosine_similarity(captions, expected).min() > 0.99


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
