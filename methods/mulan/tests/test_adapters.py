"""The adapters by their published names and sizes, and what they compute."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mulan.method import QueryAdapter, build_adapter

SMALL = {"variant": "published", "family": "sd", "encoder_width": 6, "width": 8, "num_heads": 2}
SMALL |= {"num_queries": 5, "num_layers": 2, "pooled_width": None, "split_widths": None}
SMALL |= {"pool": "mean", "pool_input_width": 6, "add_embedding": None, "languages": ["en"]}
SMALL_SDXL = {**SMALL, "family": "sdxl", "width": 12, "split_widths": [8, 4], "pooled_width": 10}
BIG = {**SMALL, "encoder_width": 4096, "num_queries": 120, "num_heads": 8}
BIG_SDXL = {**BIG, "family": "sdxl", "width": 2048, "split_widths": [1280, 768]}
BIG_SDXL |= {"pooled_width": 1280, "pool": "encoder", "pool_input_width": 768}


def states_of(num_rows: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(num_rows, 7, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ({**BIG, "width": 768}, 20_371_968),  # SD 1.5
        ({**BIG, "width": 1024}, 34_764_800),  # SD 2.1
        (BIG_SDXL, 75_954_688),
        ({**BIG, "replaces_projection": True, "width": 1152}, 6_048_000),
        # SD 3.5 medium, from 1024
        (
            {**BIG, "encoder_width": 1024, "width": 4096, "query_width": 1024, "split_widths": None}
            | {"pooled_width": 2048, "pool": "mean", "pool_input_width": 1024},
            42_113_024,
        ),
        (
            {**BIG_SDXL, "add_embedding": [2816, 1280]},
            75_954_688 + 2816 * 1280 + 1280**2 + 2 * 1280,
        ),
        (
            {**BIG, "variant": "seed", "encoder_width": 768, "width": 768, "languages": ["a", "b"]},
            2 * 2 * (768**2 + 768),
        ),
    ],
)
def test_published_sizes(shape: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        adapter = build_adapter(shape)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == count


def test_names_are_those_of_the_published_files() -> None:
    plain = nn.Transformer(8, 2, 1, 1, 32, norm_first=True).state_dict()
    names = {"queries", "proj.0.weight", "proj.0.bias", "proj.2.weight", "proj.2.bias"}
    names |= {f"transformer.{name}" for name in plain}
    assert set(build_adapter(SMALL).state_dict()) == names
    head = {f"linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    sdxl = set(build_adapter(SMALL_SDXL).state_dict())
    assert sdxl == {f"adapter{i}.{name}" for i in (1, 2) for name in names} | {
        f"pool_caption_projection.{name}" for name in head
    }
    assert set(build_adapter({**SMALL, "replaces_projection": True}).state_dict()) == head


def test_query_adapter_equals_torchs_transformer_over_the_queries() -> None:
    """Self-attention of the queries is computed once here, and once a row there."""
    torch.manual_seed(0)
    adapter = QueryAdapter(6, 8, num_queries=5, num_heads=2)
    theirs = nn.Transformer(
        8, 2, 1, 1, 32, dropout=0.0, activation="relu", batch_first=True, norm_first=True
    )
    theirs.load_state_dict(adapter.transformer.state_dict())
    states = states_of()
    expected = theirs(adapter.proj(states), adapter.queries.expand(3, -1, -1))
    found, pooled = adapter(states)
    torch.testing.assert_close(found, expected)
    assert found.shape == (3, 5, 8) and pooled is None
    for output in (found, expected):
        adapter.zero_grad()
        theirs.zero_grad()
        output.square().sum().backward()
    gradients = dict(adapter.transformer.named_parameters())
    adapter(states)[0].square().sum().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        SMALL,
        {**SMALL, "replaces_projection": True},
        SMALL_SDXL,
        {**SMALL_SDXL, "pool": "first"},
        {**SMALL_SDXL, "pool": "attention"},
        {**SMALL_SDXL, "pool": "encoder", "pool_input_width": 9},
        {**SMALL_SDXL, "split_widths": None, "query_width": 4},
    ],
)
def test_a_gradient_reaches_every_parameter_and_rows_are_independent(shape: dict[str, Any]) -> None:
    torch.manual_seed(0)
    adapter = build_adapter(shape)
    extra = (torch.randn(3, 9),) if shape["pool"] == "encoder" else ()
    states, pooled = adapter(states_of(), *extra)
    assert (pooled is None) == (not shape["pooled_width"])
    weights = torch.randn_like(states)
    loss = (states * weights).sum() + (0 if pooled is None else pooled.square().sum())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in adapter.named_parameters()}
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values()), gradients.keys()
    one = adapter(states_of()[1:2], *(e[1:2] for e in extra))
    torch.testing.assert_close(one[0][0], states[1])
    if pooled is not None:
        torch.testing.assert_close(one[1][0], pooled[1])


def test_sdxl_reads_the_states_twice_and_pools_them() -> None:
    torch.manual_seed(0)
    states = states_of()
    for pool, vector in (("mean", states.mean(1)), ("first", states[:, 0])):
        adapter = build_adapter({**SMALL_SDXL, "pool": pool})
        found, pooled = adapter(states)
        torch.testing.assert_close(found[..., :8], adapter.adapter1(states)[0])
        torch.testing.assert_close(found[..., 8:], adapter.adapter2(states)[0])
        torch.testing.assert_close(pooled, adapter.pool_caption_projection(vector))
    adapter = build_adapter({**SMALL_SDXL, "pool": "encoder", "pool_input_width": 9})
    with pytest.raises(ValueError, match="the encoder's own pooled vector"):
        adapter(states)


def seed_adapter(languages: list[str], **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_adapter({**SMALL, "variant": "seed", "languages": languages, **changes})


@pytest.mark.parametrize("num_layers", [2, 3])
def test_seed_adapter_gives_each_row_its_languages_mlp(num_layers: int) -> None:
    adapter = seed_adapter(["de", "fr", "zh"], num_layers=num_layers)
    states, numbers = states_of(), torch.tensor([2, 0, 2])
    found, pooled = adapter(states, numbers)
    assert pooled is None
    for row, number in enumerate(numbers):
        h = states[row]
        for place, layer in enumerate(adapter.languages[number]):
            h = layer(h if place == 0 else h * 0.5 * (1 + torch.erf(h / 2**0.5)))
        torch.testing.assert_close(found[row], h)
    found.square().sum().backward()
    touched = [next(layers.parameters()).grad.abs().sum() > 0 for layers in adapter.languages]
    assert touched == [True, False, True]
    for number in range(3):
        adapter.language = number
        whole = adapter(states, torch.full((3,), number))
        torch.testing.assert_close(adapter(states)[0], whole[0])


def test_seed_adapter_is_chosen_by_language_and_drives_no_other_family() -> None:
    adapter = seed_adapter(["de", "fr"], language="fr")
    assert adapter.language == 1
    with pytest.raises(ValueError, match="has no 'zh'; it has de, fr"):
        seed_adapter(["de", "fr"], language="zh")
    for change in ({"pooled_width": 4}, {"replaces_projection": True}):
        with pytest.raises(ValueError, match="use variant published"):
            seed_adapter(["de"], **change)
