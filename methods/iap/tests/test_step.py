"""One step: what both branches share, what is frozen, which rows and captions count."""

import copy
import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crosslingual.frozen.base import Base, Conditioning, Denoiser
from crosslingual.frozen.schedule import Generators
from crosslingual.training.processes import Ranks, row_generators
from iap.artifact import encoder_config
from iap.clip import ClipSpace
from iap.encoder import altclip_config, start_encoder
from iap.method import AttentiveFeatures, attend, expand_states, mask_bias, split_heads
from iap.settings import TrainSettings
from iap.step import Frozen, choose_languages, iap_step, load_frozen

ROWS, LENGTH, PAD, WIDTH = 6, 16, 1, 16
CPU = torch.device("cpu")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids_of(*shape: int, seed: int = 0) -> Tensor:
    """Captions of 4 to 9 tokens."""
    generator = draws(seed)
    ids = torch.randint(5, 100, (*shape, LENGTH), generator=generator, dtype=torch.int32)
    lengths = torch.randint(4, 10, (*shape, 1), generator=generator)
    return torch.where(torch.arange(LENGTH) < lengths, ids, PAD)


def batch_of(**changes: Any) -> dict[str, Tensor]:
    """Random arrays as `TripletParts.encode` gives them, in two languages, all parallel."""
    generator = draws()
    return {
        "latent_mean": torch.randn(ROWS, 4, 4, 4, generator=generator),
        "latent_std": torch.randn(ROWS, 4, 4, 4, generator=generator).abs(),
        "english_states": torch.randn(ROWS, LENGTH, WIDTH, generator=generator),
        "target_ids": ids_of(ROWS, 2),
        "native": torch.zeros(ROWS, dtype=torch.bool),
        "has_english": torch.ones(ROWS, dtype=torch.bool),
        "has_language": torch.ones(ROWS, 2, dtype=torch.bool),
    } | changes


@dataclass
class Step:
    """A step's parts under some settings; `denoiser` is what was loaded for it."""

    settings: TrainSettings
    frozen: Frozen
    student: nn.Module
    denoiser: Denoiser | None

    def loss(
        self, batch: dict[str, Tensor], draws: Generators, stratified: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return iap_step(self.student, self.frozen, batch, draws, self.settings, stratified)

    def states(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Those of one target caption a row, drawn as the step draws it."""
        chosen = choose_languages(batch["has_language"], generator, 1)[:, 0]
        return expand_states(*self.student(batch["target_ids"][torch.arange(ROWS), chosen].long()))

    def whole_pass(self, noisy: Any, states: Tensor) -> tuple[AttentiveFeatures, Tensor]:
        """All cross-attentions' features and the predicted noise, under text states."""
        attentions = [attention for _, attention in self.denoiser.cross_attentions()]
        features = AttentiveFeatures(self.denoiser.predict, attentions)
        text = Conditioning(states)
        return features, features.run(noisy.latents, noisy.timesteps, text, stop_early=False)


@pytest.fixture
def build(sd: str, encoder: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Step]:
    loaded: list[Denoiser] = []
    load = Base.load_denoiser

    def record(*given: Any, **settings: Any) -> Denoiser:
        loaded.append(load(*given, **settings))
        return loaded[-1]

    monkeypatch.setattr(Base, "load_denoiser", record)

    def make(**changes: Any) -> Step:
        settings = TrainSettings(**{"caption_dropout": 0.0, **changes})
        null = {"english_states": torch.randn(LENGTH, WIDTH, generator=draws(1))}
        null["target_ids"] = torch.tensor([0, 2] + [PAD] * (LENGTH - 2), dtype=torch.int32)
        torch.manual_seed(0)
        student = start_encoder(altclip_config(encoder, None, WIDTH), encoder, None)
        frozen = load_frozen(settings, Base.open(sd), null, CPU)
        return Step(settings, frozen, student, loaded.pop() if loaded else None)

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"branch": "full", "noise_weight": 0.5},
        {"captions_per_pass": 2, "layers": ["mid"], "distance": "cosine"},
        {"english_draws": 1, "caption_dropout": 0.5},
        {"objective": "text"},
    ],
)
def test_frozen_unet_stays_and_every_tensor_of_the_encoder_moves(
    build: Any, changes: dict[str, Any]
) -> None:
    step = build(**changes)
    batch = batch_of()
    if changes.get("english_draws"):
        for number, (_, layer) in enumerate(step.frozen.layers):
            kept = torch.randn(ROWS, 1, 3, layer.to_q.out_features, generator=draws())
            batch[f"queries_{number}"] = kept.half()
    assert (step.denoiser is None) == (changes == {"objective": "text"})
    unet = nn.Module() if step.denoiser is None else step.denoiser.model
    frozen, trained = (copy.deepcopy(part.state_dict()) for part in (unet, step.student))
    optimizer = torch.optim.AdamW(step.student.parameters(), lr=1e-2)
    for number in range(2):
        loss, parts = step.loss(batch, draws(number))
        loss.backward()
        optimizer.step()
    assert not any(part.requires_grad for part in parts.values())
    assert not unet.training or step.denoiser is None
    assert all(p.grad is None for p in unet.parameters())
    assert all(torch.equal(frozen[name], tensor) for name, tensor in unet.state_dict().items())
    moved = step.student.state_dict()
    still = [name for name, tensor in moved.items() if torch.equal(trained[name], tensor)]
    assert not still


@pytest.mark.parametrize("changes", [{}, {"captions_per_pass": 2, "caption_dropout": 0.5}])
def test_gradient_of_clip_attention_reaches_exactly_the_encoder(
    sd: str, encoder: str, changes: dict[str, Any]
) -> None:
    settings = TrainSettings(objective="clip_attention", **changes)
    project = nn.Linear(WIDTH, 12, bias=False).requires_grad_(False)
    generator = draws()
    null = {"english_states": torch.randn(LENGTH, WIDTH, generator=generator)}
    null |= {"english_pooled": torch.randn(12, generator=generator), "target_ids": ids_of()}
    noising = Base.open(sd).schedule(device=CPU, caption_dropout=settings.caption_dropout)
    frozen = Frozen(noising, null, [], nn.Identity(), False, clip=ClipSpace(project, 10.0))
    student = start_encoder(altclip_config(encoder, None, WIDTH), encoder, None)
    patches = torch.randn(ROWS, 4, 12, generator=generator).half()
    batch = batch_of(clip_patches=patches, english_pooled=torch.randn(ROWS, 12))
    loss, parts = iap_step(student, frozen, batch, draws(), settings)
    loss.backward()
    torch.testing.assert_close(loss, parts["attention"] + parts["pooled"])
    moved = {n for n, p in student.named_parameters() if p.grad.abs().sum() > 0}
    assert moved >= {n for n, _ in student.named_parameters() if not n.endswith("key.bias")}
    assert project.weight.grad is None


def test_local_branch_is_its_definition(build: Any) -> None:
    """Queries of one English pass; of the target branch, keys, values and attention: by hand."""
    step, batch = build(normalise=False), batch_of()
    found, _ = step.loss(batch, draws())
    generator = draws()
    noisy = step.frozen.noising.draw(batch, generator, False)
    states = step.states(batch, generator)
    features, _ = step.whole_pass(noisy, batch["english_states"])
    layers = zip(features.attentions, features.queries, features.outputs, strict=True)
    terms = [
        (attend(layer, query, states) - output).square().mean() for layer, query, output in layers
    ]
    assert len(terms) == 4
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_full_branch_runs_both_languages_through_the_unet(build: Any) -> None:
    """Its outputs drift from the local branch's after the first layer alone, and the noise too."""
    step, batch = build(branch="full", normalise=False, noise_weight=2.0), batch_of()
    found, parts = step.loss(batch, draws())
    generator = draws()
    noisy = step.frozen.noising.draw(batch, generator, False)
    states = step.states(batch, generator)
    english, english_eps = step.whole_pass(noisy, batch["english_states"])
    target, target_eps = step.whole_pass(noisy, states)
    pairs = zip(english.outputs, target.outputs, strict=True)
    attention = torch.stack([(a - b).square().mean() for a, b in pairs]).mean()
    noise = (english_eps - target_eps).square().mean()
    torch.testing.assert_close(parts["attention"], attention.detach())
    torch.testing.assert_close(found, attention + 2.0 * noise)
    local = build(normalise=False, layers=["0"])
    first = build(branch="full", normalise=False, layers=["0"])
    same = [part.loss(batch, draws())[0] for part in (local, first)]
    torch.testing.assert_close(*same)


@pytest.mark.parametrize(("share", "reads"), [(1.0, 0), (0.0, 1)])
def test_rehearsal_matches_the_english_caption_to_the_english_branch(
    build: Any, share: float, reads: int
) -> None:
    """With a share of 1, a row reads English captions alone; with 0, those of the others alone."""
    step = build(target_language=["en", "de"], rehearsal=share)
    expected, _ = step.loss(batch_of(), draws())
    for place in (0, 1):
        ids = batch_of()["target_ids"]
        ids[:, place] = ids_of(ROWS, seed=7)
        found, _ = step.loss(batch_of(target_ids=ids), draws())
        assert torch.equal(found, expected) == (place != reads)


def test_english_is_drawn_by_its_share_where_a_row_has_it() -> None:
    has = torch.tensor([[True, True, True], [True, False, True], [True, True, False]])
    chosen = choose_languages(has.repeat(1000, 1), draws(), 2, [False, True, False], 0.2)
    rows = chosen.view(1000, 3, 2)
    assert (rows[:, 0::2] == 1).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (rows[:, 1] != 1).all()
    others = rows[:, 0][(rows[:, 0] != 1).all(dim=1)]
    assert (others.sum(dim=1) == 2).all(), "the others take turns"
    alone = choose_languages(
        torch.tensor([[False, True, False]]), draws(), 2, [False, True, False], 0.0
    )
    assert alone.tolist() == [[1, 1]], "a row that has English alone reads English"


def test_several_languages_are_rehearsed_alike() -> None:
    has = torch.ones(3000, 4, dtype=torch.bool)
    chosen = choose_languages(has, draws(), 1, [False, True, False, True], 0.4).flatten()
    shares = torch.bincount(chosen, minlength=4) / 3000
    assert shares.tolist() == pytest.approx([0.3, 0.2, 0.3, 0.2], abs=0.03)


def test_kept_queries_give_what_their_pass_gave(build: Any) -> None:
    step, online = build(english_draws=1, normalise=False), build(normalise=False)
    batch = batch_of()
    expected, _ = online.loss(batch, draws())
    for number, query in enumerate(online.frozen.features.queries):
        batch[f"queries_{number}"] = query.transpose(1, 2).flatten(2)[:, None]
    batch["has_language"][:, 1] = False
    batch["target_ids"][:, 1] = batch["target_ids"][:, 0]
    one_language, _ = online.loss(batch, draws())
    torch.testing.assert_close(step.loss(batch, draws())[0], one_language)
    assert not torch.equal(expected, one_language)


def test_kept_queries_need_the_cross_attentions_alone(build: Any) -> None:
    """The UNet is let go: nothing that is frozen holds it."""
    step = build(english_draws=1)
    gone = weakref.ref(step.denoiser.model)
    step.denoiser = None
    gc.collect()
    assert gone() is None and len(step.frozen.layers) == 4


def test_a_row_without_a_teacher_counts_for_nothing(build: Any) -> None:
    step = build(captions_per_pass=2)
    keep = torch.arange(ROWS) != 2
    whole = {name: array[keep] for name, array in batch_of().items()}
    expected, _ = step.loss(whole, [draws(i) for i in range(ROWS) if i != 2])
    for spoilt in ({"native": ~keep}, {"has_english": keep}):
        rows = [draws(i) for i in range(ROWS)]
        found, _ = step.loss(batch_of(**spoilt), rows)
        torch.testing.assert_close(found, expected)


def test_dropped_rows_see_the_empty_prompt_in_both_languages(build: Any) -> None:
    """All rows dropped, natives too: captions do not matter, the empty prompt's states do."""
    step = build(caption_dropout=1.0)
    found, _ = step.loss(batch_of(native=torch.ones(ROWS, dtype=torch.bool)), draws())
    other = batch_of(
        english_states=torch.zeros(ROWS, LENGTH, WIDTH), target_ids=ids_of(ROWS, 2, seed=9)
    )
    again, _ = step.loss(other, draws())
    assert torch.equal(found, again) and found > 0
    step.frozen.null["english_states"] += 1.0
    assert not torch.equal(step.loss(other, draws())[0], found)


def test_validation_is_deterministic_and_drops_nothing(build: Any) -> None:
    step = build(caption_dropout=1.0)
    dropping_nothing = build()
    first, again, other = (
        step.loss(batch_of(), draws(seed), stratified=True)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    plain = dropping_nothing.loss(batch_of(), draws(), stratified=True)[0]
    assert torch.equal(first, plain)


def test_what_is_drawn_for_a_row_does_not_depend_on_its_batch(build: Any) -> None:
    """Two half batches of two processes give the mean loss of one."""
    step = build(captions_per_pass=2)
    halves = []
    for rank in range(2):
        rows = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
        half = {name: array[rows] for name, array in batch_of().items()}
        generators = row_generators(3, 5, Ranks(rank, 2, rank, CPU), ROWS // 2)
        halves.append(step.loss(half, generators)[0])
    generators = row_generators(3, 5, Ranks(0, 1, 0, CPU), ROWS)
    whole, _ = step.loss(batch_of(), generators)
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


def test_languages_are_drawn_evenly_and_each_once_before_any_stands_twice() -> None:
    has = torch.tensor([[True, True, True], [True, False, True]]).repeat(400, 1)
    chosen = choose_languages(has, draws(), 2)
    assert has.gather(1, chosen).all()
    assert all(len(set(row)) == 2 for row in chosen.tolist())
    counts = torch.bincount(chosen[::2].flatten(), minlength=3) / 800
    assert counts.tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
    thrice = choose_languages(has, draws(), 3)
    assert all(len(set(row)) == 2 for row in thrice[1::2].tolist())
    has[7] = False
    with pytest.raises(ValueError, match="no caption in any language .* --target_language"):
        choose_languages(has, draws(), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_weight": 1.0}, "noise_weight needs --branch full"),
        ({"branch": "full", "english_draws": 1}, "set it to 0 for --branch full"),
        ({"captions_per_pass": 0}, "captions_per_pass must be at least 1"),
        ({"layers": ["middle"]}, "no cross-attention 'middle'"),
        ({"rehearsal": 0.1}, "add en to --target_language"),
        ({"rehearsal": 2.0, "target_language": ["en"]}, "must lie between 0 and 1"),
        ({"objective": "clip_attention", "english_draws": 1}, "leave out --english_draws"),
        ({"objective": "clip_attention", "branch": "full"}, "leave out --branch"),
    ],
)
def test_settings_that_contradict_are_refused(
    build: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_heads_are_split_as_diffusers_splits_them() -> None:
    projected = torch.arange(2 * 3 * 8).view(2, 3, 8)
    assert torch.equal(split_heads(projected, 4)[1, 2, 0], projected[1, 0, 4:6])


@pytest.mark.parametrize("family", ["pixart", "sana"])
def test_recorded_attention_is_the_models_own_under_its_mask_and_projection(
    request: pytest.FixtureRequest, family: str
) -> None:
    base = Base.open(request.getfixturevalue(family))
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 4, 4, generator=generator)
    states = torch.randn(2, 5, base.text.width, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    text, times = Conditioning(states, mask=mask), torch.tensor([900.0, 100.0])
    denoiser = base.load_denoiser(torch.device("cpu"), resolution=32)
    layers = [layer for _, layer in denoiser.cross_attentions()]
    with torch.no_grad():
        expected = denoiser.predict(latents, times, text)
        features = AttentiveFeatures(denoiser.predict, layers)
        found = features.run(latents, times, text, stop_early=False)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        read = denoiser.text_projection()(states)
        for layer, query, output in zip(layers, features.queries, features.outputs, strict=True):
            again = attend(layer, query, read, bias=mask_bias(mask))
            torch.testing.assert_close(again, output, atol=1e-5, rtol=1e-4)


def test_a_base_of_joint_attention_is_refused_before_it_is_loaded(sd3: str, encoder: str) -> None:
    settings = TrainSettings(pretrained_model_name_or_path=sd3, text_encoder=encoder)
    with pytest.raises(ValueError, match="attends to text and picture in one"):
        encoder_config(settings)
