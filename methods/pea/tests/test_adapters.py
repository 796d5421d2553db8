"""The adapters by their published names and sizes, and the UNet blocks that they learn from."""

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from crosslingual.frozen.schedule import drop_captions
from pea.method import (
    BlockOutputs,
    BottleneckAdapter,
    PeaAdapter,
    PooledPeaAdapter,
    build_adapter,
    pea_loss,
)

WIDTHS = {"encoder_width": 6, "width": 5, "hidden_width": 7, "pooled_width": None, "rank": 2}


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ({"encoder_width": 1024, "hidden_width": 2048, "width": 768}, 7_866_368),  # SD 1.5
        (  # SDXL
            {"encoder_width": 1024, "hidden_width": 1024, "width": 2048, "pooled_width": 1280},
            6_033_408,
        ),
        ({"variant": "seed", "encoder_width": 768, "width": 768, "rank": 64}, 2 * 64 * 768 + 832),
    ],
)
def test_published_sizes(shape: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        adapter = build_adapter({"variant": "published", "pooled_width": None, **shape})
    assert sum(parameter.numel() for parameter in adapter.parameters()) == count


def test_names_are_those_of_the_published_files() -> None:
    names = ["layernorm.weight", "layernorm.bias", *(f"projector.{i}.weight" for i in (0, 2, 4))]
    assert list(PeaAdapter(6, 5, 7).state_dict()) == names
    assert list(PooledPeaAdapter(6, 5, 7, 4).state_dict()) == [*names, "fc.weight", "fc.bias"]


def test_adapters_equal_their_formula() -> None:
    states = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    adapter = PooledPeaAdapter(6, 5, 7, 4)
    weights = adapter.state_dict()
    normal = (states - states.mean(-1, keepdim=True)) / (
        states.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    p = normal * weights["layernorm.weight"] + weights["layernorm.bias"]
    for layer, activation in ((0, gelu), (2, gelu), (4, lambda x: x)):
        p = activation(p @ weights[f"projector.{layer}.weight"].T)
    sequence, pooled = adapter(states)
    torch.testing.assert_close(sequence, gelu(p) @ weights["fc.weight"].T + weights["fc.bias"])
    torch.testing.assert_close(pooled, p.mean(dim=1))
    plain = PeaAdapter(6, 4, 7)
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    torch.testing.assert_close(plain(states)[0], p)
    assert plain(states)[1] is None


def test_seed_adapter_starts_as_the_identity() -> None:
    states = torch.randn(2, 3, 5)
    assert torch.equal(BottleneckAdapter(5, 5, 2)(states)[0], states)


def test_seed_variant_has_no_pooled_vector() -> None:
    with pytest.raises(ValueError, match="use variant published"):
        build_adapter({**WIDTHS, "variant": "seed", "pooled_width": 4})


def test_dropped_rows_get_the_empty_prompts_states_and_pooled_vector_together() -> None:
    dropped = torch.tensor([False, True, True])
    states, pooled = torch.randn(3, 2, 5), torch.randn(3, 4)
    null_states, null_pooled = torch.randn(1, 2, 5), torch.randn(1, 4)
    for given, null in ((states, null_states), (pooled, null_pooled)):
        after = drop_captions(given, null, dropped)
        assert torch.equal(after[0], given[0])
        assert torch.equal(after[1:], null.expand_as(after[1:]))


SD_15 = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
SDXL = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
}


def tiny_unet(layout: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=5,
        **layout,
    )
    return unet.eval().requires_grad_(False)


@pytest.mark.parametrize(("layout", "num_blocks"), [(SD_15, 9), (SDXL, 7)])
def test_every_block_gives_an_output_and_the_gradient_reaches_exactly_the_adapter(
    layout: dict[str, Any], num_blocks: int
) -> None:
    unet = tiny_unet(layout)
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    before = copy.deepcopy(unet.state_dict())
    adapter = build_adapter({**WIDTHS, "variant": "published"})
    generator = torch.Generator().manual_seed(0)
    latents, states, english = (
        torch.randn(2, *shape, generator=generator) for shape in ((4, 8, 8), (3, 6), (3, 5))
    )
    times = torch.tensor([10, 900])

    def hidden_states(_: nn.Module, output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    with torch.no_grad(), BlockOutputs(blocks, hidden_states) as teacher:
        teacher_eps = unet(latents, times, english).sample
    with BlockOutputs(blocks, hidden_states) as student:
        student_eps = unet(latents, times, adapter(states)[0]).sample
    assert len(teacher.outputs) == len(student.outputs) == num_blocks
    channels = layout["block_out_channels"]
    expected = [*channels, channels[-1], *reversed(channels)]
    assert [output.shape[1] for output in student.outputs] == expected
    halved = [8 // 2**i for i in range(1, len(channels))]  # the last block down keeps its size
    edges = [*halved, halved[-1], halved[-1], *reversed(halved[:-1]), 8, 8]
    assert [output.shape[-1] for output in student.outputs] == edges
    unet(latents, times, english)
    assert len(student.outputs) == num_blocks, "the hooks are gone"
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    native = torch.tensor([False, True])
    loss, _ = pea_loss(student_eps, teacher_eps, noise, student.outputs, teacher.outputs, native)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert all(p.grad is None for p in unet.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
