"""One step: what teacher and student share, what is frozen, what the adapter learns from."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crosslingual.features.frozen_parts import english_text
from crosslingual.frozen.base import Base, Conditioning
from pea.artifact import adapter_config
from pea.data import PeaParts
from pea.method import build_adapter
from pea.settings import TrainSettings
from pea.step import Frozen, load_frozen, pea_step
from pea.warm_start import (
    CrossAttentions,
    read_tokens,
    warm_start_step,
)

ROWS, ENCODER_WIDTH, RESOLUTION = 6, 12, 32


class Calls(list):
    """A UNet's calls: what went in, and what the blocks and the whole gave."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        unet.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, _: nn.Module, given: tuple[Tensor, ...], named: Any, output: Any) -> None:
        latents, timesteps, states = given[:3]
        added = named.get("added_cond_kwargs") or {}
        self.append(
            {"latents": latents, "timesteps": timesteps, "states": states}
            | {**added, "predicted": output[0]}
        )


@dataclass
class Built:
    """A step on a base: what is frozen, an adapter, the run's settings, and the UNet's calls."""

    frozen: Frozen
    adapter: nn.Module
    settings: TrainSettings
    calls: Calls

    @property
    def unet(self) -> nn.Module:
        return self.frozen.denoiser.model

    def loss(
        self, batch: dict[str, Tensor], seed: int = 0, stratified: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        draws = torch.Generator().manual_seed(seed)
        return pea_step(self.adapter, self.frozen, batch, draws, self.settings, stratified)


def batch_of(width: int, pooled_width: int | None = None, **changes: Any) -> dict[str, Tensor]:
    """Random arrays as `FrozenParts.encode` gives them, in two languages, all parallel."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=generator)

    batch = {
        "latent_mean": draw(4, 4, 4),
        "latent_std": draw(4, 4, 4).abs(),
        "english_states": draw(16, width),
        "multilingual_states": draw(2, 16, ENCODER_WIDTH),
        "native": torch.zeros(ROWS, dtype=torch.bool),
        "has_english": torch.ones(ROWS, dtype=torch.bool),
        "has_language": torch.ones(ROWS, 2, dtype=torch.bool),
    }
    if pooled_width:
        batch["english_pooled"] = draw(pooled_width)
    return batch | changes


def build(folder: str, **changes: Any) -> Built:
    """A step on a base, with random states of the empty prompt."""
    base = Base.open(folder)
    width, pooled_width = base.text.width, base.text.pooled_width
    settings = TrainSettings(**{"resolution": RESOLUTION, "hidden_width": 24, **changes})
    generator = torch.Generator().manual_seed(1)
    null = {
        "english_states": torch.randn(16, width, generator=generator),
        "multilingual_states": torch.randn(16, ENCODER_WIDTH, generator=generator),
    }
    if pooled_width:
        null["english_pooled"] = torch.randn(pooled_width, generator=generator)
    torch.manual_seed(0)
    shape = {"encoder_width": ENCODER_WIDTH, "width": width, "pooled_width": pooled_width}
    shape |= {"hidden_width": 24, "rank": 4, "variant": settings.variant}
    frozen = load_frozen(settings, base, null, torch.device("cpu"))
    return Built(frozen, build_adapter(shape), settings, Calls(frozen.denoiser.model))


def test_frozen_unet_stays_and_the_adapter_moves(sd: str) -> None:
    built = build(sd)
    frozen, trained = (copy.deepcopy(part.state_dict()) for part in (built.unet, built.adapter))
    optimizer = torch.optim.AdamW(built.adapter.parameters(), lr=1e-3)
    for step in range(2):
        built.loss(batch_of(16), step)[0].backward()
        optimizer.step()
    assert not built.unet.training
    assert all(p.grad is None and not p.requires_grad for p in built.unet.parameters())
    after = built.unet.state_dict()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in after.items())
    moved = built.adapter.state_dict()
    assert not any(torch.equal(trained[name], tensor) for name, tensor in moved.items())


def test_teachers_pass_has_no_graph_and_both_see_one_noisy_latent(sd: str) -> None:
    built = build(sd)
    built.loss(batch_of(16))
    teacher, student = built.calls
    assert not teacher["predicted"].requires_grad and student["predicted"].requires_grad
    assert torch.equal(teacher["latents"], student["latents"])
    assert torch.equal(teacher["timesteps"], student["timesteps"])


@pytest.mark.parametrize(("base", "pooled_width"), [("sd", None), ("sdxl", 20)])
def test_teacher_and_student_drop_the_same_rows_sequence_and_pooled_vector_together(
    request: pytest.FixtureRequest, base: str, pooled_width: int | None
) -> None:
    built = build(request.getfixturevalue(base), caption_dropout=0.5)
    batch = batch_of(built.unet.config.cross_attention_dim, pooled_width)
    batch["multilingual_states"][:, 1] = batch["multilingual_states"][:, 0]
    built.loss(batch)[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in built.adapter.parameters())
    teacher, student = built.calls
    null = built.frozen.null
    dropped = [torch.equal(states, null["english_states"][0]) for states in teacher["states"]]
    assert 0 < sum(dropped) < ROWS
    of_null = built.adapter(null["multilingual_states"])
    of_rows = built.adapter(batch["multilingual_states"][:, 0])
    kinds = [("states", "english_states")]
    kinds += [("text_embeds", "english_pooled")] if pooled_width else []
    for place, (seen, english) in enumerate(kinds):
        for row, is_dropped in enumerate(dropped):
            expected = null[english][0] if is_dropped else batch[english][row]
            assert torch.equal(teacher[seen][row], expected)
            expected = of_null[place][0] if is_dropped else of_rows[place][row]
            torch.testing.assert_close(student[seen][row], expected)


def test_sdxl_is_told_the_sizes_of_an_uncropped_picture(sdxl: str) -> None:
    built = build(sdxl)
    built.loss(batch_of(32, pooled_width=20))
    sizes = torch.tensor([RESOLUTION, RESOLUTION, 0, 0, RESOLUTION, RESOLUTION]).float()
    assert all(torch.equal(call["time_ids"], sizes.expand(ROWS, -1)) for call in built.calls)


def test_dropped_rows_go_through_the_adapter_and_give_it_a_gradient(sd: str) -> None:
    built = build(sd, caption_dropout=1.0)
    built.loss(batch_of(16))[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in built.adapter.parameters())


def test_native_rows_learn_from_the_noise_and_rows_without_english_are_native(sd: str) -> None:
    built = build(sd)
    half = torch.arange(ROWS) < ROWS // 2
    native = built.loss(batch_of(16, native=half))
    no_english = built.loss(batch_of(16, has_english=~half))
    assert torch.equal(native[0], no_english[0])
    _, parts = built.loss(batch_of(16, native=torch.ones(ROWS, dtype=torch.bool)))
    assert parts["native"] > 0 and parts["output"] == 0 and parts["feature"] == 0


def test_validation_is_deterministic_over_equal_spans_of_time_and_drops_nothing(sd: str) -> None:
    built = build(sd, caption_dropout=1.0)
    first, again, other = (built.loss(batch_of(16), seed, stratified=True)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(built.calls[0]["states"], batch_of(16)["english_states"])
    spans = (built.calls[0]["timesteps"] * ROWS / 1000).long()
    assert torch.equal(spans, torch.arange(ROWS))


def test_seed_variant_trains_by_configuration(sd: str) -> None:
    built = build(sd, variant="seed")
    built.adapter.up.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    loss, parts = built.loss(batch_of(16))
    loss.backward()
    assert set(parts) == {"kl", "recon"}
    assert all(p.grad.abs().sum() > 0 for p in built.adapter.parameters())


def test_features_are_those_of_the_blocks_that_are_named(sd3: str) -> None:
    named = build(sd3, feature_blocks=[2, 0], feature_outputs="attentions")
    blocks = named.unet.transformer_blocks
    # the first block of this model has two attentions
    assert named.frozen.layers == [blocks[0].attn, blocks[0].attn2, blocks[2].attn]
    assert build(sd3, feature_weight=0.0).frozen.layers == []
    with pytest.raises(ValueError, match="no block 3: feature_blocks are numbers from 0 to 2"):
        build(sd3, feature_blocks=[3])
    settings = dataclasses.replace(named.settings, pretrained_model_name_or_path=sd3)
    with pytest.raises(ValueError, match="this run matches none"):
        adapter_config(dataclasses.replace(settings, feature_weight=0.0))


@pytest.mark.parametrize("num_queries", [0, 4])
@pytest.mark.parametrize(("base", "pooled_width"), [("sd", None), ("sdxl", 20)])
def test_a_warm_start_is_over_where_every_caption_reads_as_english(
    request: pytest.FixtureRequest, base: str, pooled_width: int | None, num_queries: int
) -> None:
    built = build(request.getfixturevalue(base))
    batch = batch_of(built.unet.config.cross_attention_dim, pooled_width)
    batch["native"][0] = True
    draws = torch.Generator().manual_seed(0)
    loss, parts = warm_start_step(built.adapter, built.frozen, batch, draws, num_queries)
    loss.backward()
    assert parts["warm_start"] > 0 and all(
        p.grad.abs().sum() > 0 for p in built.adapter.parameters()
    )
    assert all(p.grad is None for p in built.unet.parameters())
    (teacher,) = built.calls  # the adapter's text passes the cross-attentions alone
    assert len(teacher["latents"]) == ROWS - 1

    def perfect(states: Tensor) -> tuple[Tensor, Tensor | None]:
        english = batch["english_states"][1:].repeat_interleave(2, dim=0)
        english = english.view(*states.shape[:-1], -1)
        pooled = batch["english_pooled"][1:].repeat_interleave(2, dim=0) if pooled_width else None
        return english, pooled

    built.frozen.noising.caption_dropout = 0.0
    assert warm_start_step(perfect, built.frozen, batch, draws, num_queries)[0] < 1e-9
    batch["native"][:] = True
    assert warm_start_step(built.adapter, built.frozen, batch, draws)[0] == 0


def test_a_warm_start_asks_from_a_few_positions_of_each_picture(sd: str) -> None:
    built = build(sd)
    batch = batch_of(built.unet.config.cross_attention_dim)
    built.frozen.noising.caption_dropout = 0.0

    def loss(num_queries: int, seeds: list[int]) -> float:
        rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        return warm_start_step(built.adapter, built.frozen, batch, rows, num_queries)[0].item()

    seeds = list(range(ROWS))
    every = loss(0, seeds)
    assert loss(10_000, seeds) == every
    few = loss(4, seeds)
    assert few == loss(4, seeds) and few != every
    other = [loss(4, [seed + 100 * number for seed in seeds]) for number in range(1, 30)]
    assert sum([few, *other]) / 30 == pytest.approx(every, rel=0.1)
    # A picture's positions are drawn by its own generator.
    kept, positions = [], []
    layers = [layer for _, layer in built.frozen.denoiser.cross_attentions()]
    handles = [
        layer.register_forward_hook(lambda _, given, __: positions.append(given[0].shape[1]))
        for layer in layers
    ]
    for others in (seeds, [seeds[0], *range(100, 99 + ROWS)]):
        rows = [torch.Generator().manual_seed(seed) for seed in others]
        with torch.no_grad(), CrossAttentions(layers, 4, rows) as attentions:
            latents, states = torch.ones(ROWS, 4, 4, 4), batch["english_states"]
            latents = latents * torch.arange(16.0).view(4, 4)
            built.frozen.denoiser.predict(latents, torch.ones(ROWS), Conditioning(states))
        kept.append(attentions.asked)
        while handles:
            handles.pop().remove()
    assert [one.shape[1] for one in kept[0]] == [min(4, num) for num in positions]
    for one, other in zip(*kept, strict=True):
        torch.testing.assert_close(one[0], other[0])
    assert any(not torch.equal(a[1:], b[1:]) for a, b in zip(*kept, strict=True))


def test_padding_is_read_once(sd: str) -> None:
    built = build(sd)
    states = torch.randn(3, 8, ENCODER_WIDTH)
    states[0, 5:], states[1, 2:] = states[0, 5], states[1, 2]
    states[2, 4] = states[2, 2]  # the same word again, but not in a row
    read = []
    built.adapter.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    torch.testing.assert_close(read_tokens(built.adapter, states), built.adapter(states)[0])
    assert [tuple(given.shape) for given in read] == [(6 + 3 + 8, ENCODER_WIDTH), states.shape]


def test_a_warm_start_needs_cross_attentions(sd: str, sd3: str) -> None:
    for setting in ("warm_start_queries", "warm_start_draws"):
        with pytest.raises(ValueError, match=f"{setting} is of .* give a warm_start_share too"):
            build(sd, **{setting: 4})
    for folder, count, reason in ((sd, -1, "at least 0"), (sd3, 2, "has none")):
        settings = TrainSettings(pretrained_model_name_or_path=folder, warm_start_draws=count)
        with pytest.raises(ValueError, match=reason):
            PeaParts(settings, torch.device("cpu"))
    with pytest.raises(ValueError, match="one attention: leave it out"):
        build(sd3, warm_start_share=0.5)


def test_without_pictures_both_passes_start_from_the_same_pure_noise(sd: str, sd3: str) -> None:
    for folder, last in ((sd, 999), (sd3, 1000)):
        built = build(folder, pictures=False, output_weight=0.0)
        text = Base.open(folder).text
        batch = batch_of(text.width, text.pooled_width)
        del batch["latent_mean"], batch["latent_std"]
        seen = []
        built.frozen.denoiser.model.register_forward_pre_hook(
            lambda _, given, named, seen=seen: seen.append((given, named)), with_kwargs=True
        )
        loss, parts = built.loss(batch)
        assert loss.item() == pytest.approx(0.1 * parts["feature"].item())
        assert parts["output"] > 0 == parts["native"]
        (one, one_named), (other, _) = seen
        assert torch.equal(one[0], other[0]) and one[0].std() == pytest.approx(1, abs=0.2)
        times = one_named.get("timestep", one[3] if folder == sd3 else one[1])
        assert times.tolist() == [last] * ROWS
        batch["has_english"][2] = False
        with pytest.raises(ValueError, match="no parallel English caption: .* --pictures false"):
            built.loss(batch)
    settings = dataclasses.replace(built.settings, pretrained_model_name_or_path=sd3)
    with pytest.raises(ValueError, match="leaves nothing to match"):
        adapter_config(dataclasses.replace(settings, feature_weight=0.0))
    for change in ({"variant": "seed"}, {"warm_start_share": 0.5}):
        with pytest.raises(ValueError, match="learn from noisy pictures: leave out"):
            adapter_config(dataclasses.replace(settings, **change))
    with pytest.raises(ValueError, match="of noisy pictures: leave out"):
        PeaParts(dataclasses.replace(settings, warm_start_draws=2), torch.device("cpu"))


@pytest.mark.parametrize(("base", "pooled_width"), [("sd", None), ("sdxl", 20)])
def test_a_warm_start_from_kept_questions_is_that_of_their_english_pass(
    request: pytest.FixtureRequest, base: str, pooled_width: int | None
) -> None:
    """And runs none; of several passes, a picture's generator draws one."""
    built = build(request.getfixturevalue(base))
    built.frozen.noising.caption_dropout = 0.0
    batch = batch_of(built.unet.config.cross_attention_dim, pooled_width)
    batch["native"][0] = True

    def loss(of: dict[str, Tensor], first: int = 0) -> Tensor:
        rows = [torch.Generator().manual_seed(first * ROWS + row) for row in range(ROWS)]
        is_kept = "asked_0" in of
        return warm_start_step(built.adapter, built.frozen, of, rows, is_kept=is_kept)[0]

    rows = [torch.Generator().manual_seed(seed) for seed in range(ROWS)]
    noisy = built.frozen.noising.draw(batch, rows)
    layers = [layer for _, layer in built.frozen.denoiser.cross_attentions()]
    english = english_text(batch, torch.device("cpu"))
    with torch.no_grad(), CrossAttentions(layers) as attentions:
        built.frozen.denoiser.predict(noisy.latents, noisy.timesteps, english)
    kept = {f"asked_{n}": asked[:, None] for n, asked in enumerate(attentions.asked)}
    expected, num_calls = loss(batch), len(built.calls)
    found = loss(batch | kept)
    assert len(built.calls) == num_calls
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(p.grad is None for p in built.unet.parameters())
    several = {name: torch.cat((asked, asked + 1), dim=1) for name, asked in kept.items()}
    seen = {round(loss(batch | several, seed).item(), 6) for seed in (0, 0, *range(1, 24))}
    assert 2 < len(seen) <= 2 ** (ROWS - 1)  # each of the parallel pictures has one of two


def test_kept_questions_are_of_each_picture_and_pass_and_of_the_settings(
    sd: str, encoder: str
) -> None:
    settings = TrainSettings(
        pretrained_model_name_or_path=sd,
        text_encoder=encoder,
        languages=["en", "de"],
        warm_start_queries=3,
        warm_start_draws=2,
    )
    parts = PeaParts(settings, torch.device("cpu"))
    captions = [{"en": [text], "de": ["ein Haus"]} for text in ("a house", "a tree")]
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    batch = {"images": images, "captions": captions, "parallel": torch.ones(2, dtype=torch.bool)}
    arrays = parts.encode({**batch, "keys": ["one", "two"]})
    again = parts.encode({**batch, "keys": ["one", "other"]})
    layers = parts.english_pass[0].cross_attentions()
    names = [name for name in arrays if name.startswith("asked_")]
    assert len(names) == len(layers)
    for name in names:
        assert arrays[name].shape[:3] == (2, 2, 3) and arrays[name].dtype == torch.float16
        assert torch.equal(arrays[name][0], again[name][0])
        assert not torch.equal(arrays[name][1], again[name][1])
        assert not torch.equal(arrays[name][0, 0], arrays[name][0, 1])
    plain = PeaParts(dataclasses.replace(settings, warm_start_draws=0), torch.device("cpu"))
    bare = PeaParts(dataclasses.replace(plain.settings, pictures=False), torch.device("cpu"))
    for untaught in (
        {"captions": [captions[0], {"de": ["ein Haus"]}]},
        {"parallel": torch.tensor([True, False])},
    ):
        with pytest.raises(ValueError, match="sample two has no parallel English caption"):
            bare.encode({**batch, "images": None, "keys": ["one", "two"], **untaught})
    assert plain.made_of.items() < parts.made_of.items()
    assert not any(
        name.startswith("asked_") for name in plain.encode({**batch, "keys": ["a", "b"]})
    )
