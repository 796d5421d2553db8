"""The losses of the papers by hand, by equation and by what must not change them; what trains."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from altdiffusion.method import (
    contrastive_loss,
    diffusion_loss,
    min_snr_weights,
    signal_to_noise,
    teacher_learning_loss,
    what_trains,
)
from crosslingual.frozen.shapes import published_shape
from crosslingual_worlds.testing.fork_server import join_ranks, run_ranks

SD_21 = {  # the UNet of SD 2.1 where it differs from SD 1.5's
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def meta_unet(**changes: Any) -> UNet2DConditionModel:
    config = published_shape("stable-diffusion-v1-5/stable-diffusion-v1-5", "unet")
    with torch.device("meta"):
        return UNet2DConditionModel.from_config({**config, **changes})


@pytest.fixture(scope="module")
def sd15() -> dict[str, int]:
    """Parameters of SD 1.x's UNet by name."""
    return {name: p.numel() for name, p in meta_unet().named_parameters()}


@pytest.fixture(scope="module")
def sd21() -> dict[str, int]:
    return {name: p.numel() for name, p in meta_unet(**SD_21).named_parameters()}


def test_teacher_learning_of_two_sentences_by_hand() -> None:
    student, teacher = (
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([[0.0, 2.0], [5.0, 1.0]]),
    )
    loss, parts = teacher_learning_loss(student, teacher)
    assert loss.item() == parts["distance"].item() == (1 + 0 + 4 + 9) / 4
    assert not parts["distance"].requires_grad


def test_teacher_learning_equals_the_papers_equation() -> None:
    """As it is written, over sentences and entries one by one, in double precision."""
    student, teacher = draw(5, 7), draw(5, 7, seed=1)
    total = 0.0
    for s, t in zip(student.double().tolist(), teacher.double().tolist(), strict=True):
        total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
    assert teacher_learning_loss(student, teacher)[0].item() == pytest.approx(total / 5, rel=1e-6)
    assert teacher_learning_loss(student, student)[0].item() == 0.0


def test_teacher_learning_does_not_depend_on_the_order_of_sentences_and_is_taken_in_fp32() -> None:
    student, teacher, order = draw(6, 4), draw(6, 4, seed=1), torch.tensor([3, 1, 5, 0, 2, 4])
    loss = teacher_learning_loss(student, teacher)[0]
    assert teacher_learning_loss(student[order], teacher[order])[0].item() == pytest.approx(
        loss.item()
    )
    small = torch.full((1, 4), 1e-4, dtype=torch.float16)  # its square is 0 in fp16's small numbers
    assert teacher_learning_loss(small, torch.zeros(1, 4))[0].item() == pytest.approx(
        1e-8, rel=0.01
    )


def test_a_teacher_of_another_width_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), the teacher's \(2, 4\): build the student"):
        teacher_learning_loss(draw(2, 3), draw(2, 4))


def test_contrastive_loss_of_two_pairs_by_hand() -> None:
    """Captions (1, 0), (0, 1) and pictures (1, 0), (0.6, 0.8): cosines [[1, .6], [0, .8]]."""
    text, image = torch.eye(2), torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    cosines = [[1.0, 0.6], [0.0, 0.8]]
    e = torch.tensor(cosines).mul(2).exp()
    rows = -(e.diag() / e.sum(dim=1)).log().mean()
    columns = -(e.diag() / e.sum(dim=0)).log().mean()
    loss, parts = contrastive_loss(text, image, 2.0)
    assert loss.item() == pytest.approx((rows + columns).item() / 2, rel=1e-6)
    assert parts["text_to_image"].item() == pytest.approx(rows.item(), rel=1e-6)
    assert parts["image_to_text"].item() == pytest.approx(columns.item(), rel=1e-6)


def test_contrastive_loss_over_two_ranks_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """The gradients too, averaged over the ranks as an engine does."""
    run_ranks(__file__, 2, tmp_path)
    text, image = draw(6, 4).requires_grad_(), draw(6, 4, seed=1)
    loss = contrastive_loss(text, image, 3.0)[0]
    loss.backward()
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(part["loss"] for part in parts) / 2 == pytest.approx(loss.item(), rel=1e-6)
    gathered = torch.cat([part["grad"] for part in parts]) / 2
    torch.testing.assert_close(gathered, text.grad, rtol=1e-5, atol=1e-7)


def test_diffusion_loss_of_two_rows_by_hand() -> None:
    def rows(*values: list[float]) -> Tensor:
        return torch.tensor(values)[:, :, None, None]

    predicted, target = rows([1, 2], [3, 4]), rows([0, 0], [1, 1])
    native = torch.tensor([False, True])
    loss, parts = diffusion_loss(predicted, target, native)
    assert loss.item() == (2.5 + 6.5) / 2
    assert {name: part.item() for name, part in parts.items()} == {"parallel": 2.5, "native": 6.5}
    weighted, unweighted = diffusion_loss(predicted, target, native, torch.tensor([0.5, 2.0]))
    assert weighted.item() == (1.25 + 13) / 2
    assert {n: p.item() for n, p in unweighted.items()} == {"parallel": 2.5, "native": 6.5}


def test_native_and_parallel_rows_count_the_same_and_their_order_does_not_matter() -> None:
    predicted, target = draw(4, 2, 3, 3), draw(4, 2, 3, 3, seed=1)
    native = torch.tensor([True, False, False, True])
    loss = diffusion_loss(predicted, target, native)[0]
    assert diffusion_loss(predicted, target, ~native)[0] == loss
    flipped = diffusion_loss(predicted.flip(0), target.flip(0), native)[0]
    assert flipped.item() == pytest.approx(loss.item(), rel=1e-6)
    assert loss.item() == pytest.approx(F.mse_loss(predicted, target).item(), rel=1e-6)


def test_min_snr_weights_follow_their_equation_and_leave_noisy_timesteps_alone() -> None:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear")
    times = torch.tensor([0, 400, 999])
    snr = signal_to_noise(scheduler.alphas_cumprod, times)
    for place, time in enumerate(times.tolist()):
        alpha = scheduler.alphas_cumprod[time].double().item()
        assert snr[place].item() == pytest.approx(alpha / (1 - alpha), rel=1e-4)
    noise = min_snr_weights(snr, 5.0, is_velocity=False)
    assert noise[0].item() == pytest.approx(5.0 / snr[0].item()) and noise[2].item() == 1.0
    velocity = min_snr_weights(snr, 5.0, is_velocity=True)
    torch.testing.assert_close(velocity, snr.clamp(max=5.0) / (snr + 1))


@pytest.mark.parametrize(
    ("shape", "all_attn2", "expected"),
    [
        ("sd15", False, 19_169_280),
        ("sd15", True, 43_962_560),
        ("sd21", False, 25_559_040),
        ("sd21", True, 50_352_320),
    ],
)
def test_concept_alignment_trains_the_published_number_of_parameters(
    request: pytest.FixtureRequest, shape: str, all_attn2: bool, expected: int
) -> None:
    sizes = request.getfixturevalue(shape)
    trains = what_trains("concept_alignment", all_attn2)
    assert sum(size for name, size in sizes.items() if trains(name)) == expected


def test_concept_alignment_trains_keys_and_values_of_cross_attention_and_nothing_else(
    sd15: dict[str, int],
) -> None:
    trains = what_trains("concept_alignment")
    chosen = [name for name in sd15 if trains(name)]
    assert len(chosen) == 2 * 16  # SD 1.x has sixteen layers of cross-attention
    layers = {name.rsplit(".attn2.", 1)[1] for name in chosen}
    assert layers == {"to_k.weight", "to_v.weight"}
    more = {
        name.rsplit(".", 3)[-3] for name in sd15 if what_trains("concept_alignment", True)(name)
    }
    assert more <= {"attn2", "to_out"}


@pytest.mark.parametrize("stage", ["quality_improvement", "guidance_tuning"])
def test_later_stages_train_the_whole_unet(sd15: dict[str, int], stage: str) -> None:
    assert all(what_trains(stage)(name) for name in sd15)


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(ValueError, match="no stage 'alignment'; there are concept_alignment, qual"):
        what_trains("alignment")


def _rank(rank: int, world_size: int, folder: Path) -> None:
    join_ranks(rank, world_size, folder)
    rows = slice(3 * rank, 3 * rank + 3)
    text, image = draw(6, 4)[rows].requires_grad_(), draw(6, 4, seed=1)[rows]
    loss = contrastive_loss(text, image, 3.0)[0]
    loss.backward()
    torch.save({"loss": loss.item(), "grad": text.grad}, folder / f"{rank}.pt")


if __name__ == "__main__":
    _rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
