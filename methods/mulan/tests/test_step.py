"""One step: what is frozen, what is dropped, and what each alignment looks at."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mulan.artifact import adapter_config, start_adapter
from mulan.method import build_adapter
from mulan.settings import TrainSettings
from mulan.step import Frozen, load_frozen, mulan_step

ROWS, ENCODER_WIDTH, TOKENS = 6, 12, 16
CPU = torch.device("cpu")


class Calls(list):
    """A denoiser's calls: what went in, and what it predicted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, _: nn.Module, given: tuple[Any, ...], named: Any, output: Any) -> None:
        self.append({"given": given, "named": named, "predicted": output[0]})


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(width: int, pooled_width: int | None = None, **changes: Any) -> dict[str, Tensor]:
    """Random arrays as `FrozenParts.encode` gives them, in two languages, all parallel."""
    generator = draws()

    def draw(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=generator)

    batch = {
        "latent_mean": draw(4, 4, 4),
        "latent_std": draw(4, 4, 4).abs(),
        "english_states": draw(TOKENS, width),
        "multilingual_states": draw(2, TOKENS, ENCODER_WIDTH),
        "native": torch.zeros(ROWS, dtype=torch.bool),
        "has_english": torch.ones(ROWS, dtype=torch.bool),
        "has_language": torch.ones(ROWS, 2, dtype=torch.bool),
    }
    if pooled_width:
        batch["english_pooled"] = draw(pooled_width)
    return batch | changes


class Step:
    """A base's step, an adapter for it, and the denoiser's calls as they come."""

    def __init__(self, base: str, encoder: str, **changes: Any) -> None:
        given = {"pretrained_model_name_or_path": base, "text_encoder": encoder, "resolution": 32}
        given |= {"languages": ["en", "de"], "num_queries": TOKENS, "num_heads": 2, **changes}
        self.settings = TrainSettings(**given)
        self.config = adapter_config(self.settings)
        generator = draws(1)
        null = {"multilingual_states": torch.randn(TOKENS, ENCODER_WIDTH, generator=generator)}
        if self.settings.english_states:
            shape = TOKENS, self.config["width"]
            null["english_states"] = torch.randn(shape, generator=generator)
        if self.config["pooled_width"]:
            null["english_pooled"] = torch.randn(self.config["pooled_width"], generator=generator)
        if self.config["family"] == "pixart":
            null["multilingual_mask"] = torch.arange(TOKENS) < 2
        self.frozen: Frozen = load_frozen(self.settings, self.config, null, CPU)
        self.null = self.frozen.null
        self.model = self.frozen.denoiser.model if self.frozen.denoiser else nn.Identity().eval()
        self.own_embedding = getattr(self.model, "add_embedding", None)
        self.adapter = start_adapter(self.settings, self.config, self.frozen.denoiser)
        self.calls = Calls(self.model)

    def loss(
        self, batch: dict[str, Tensor], generator: torch.Generator, stratified: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return mulan_step(self.settings, self.frozen, self.adapter, batch, generator, stratified)


@pytest.mark.parametrize("alignment", ["image", "language", "both"])
@pytest.mark.parametrize(("base", "width", "pooled_width"), [("sd", 16, None), ("sdxl", 32, 20)])
def test_frozen_model_stays_and_the_whole_adapter_moves(
    request: Any, encoder: str, base: str, width: int, pooled_width: int | None, alignment: str
) -> None:
    step = Step(request.getfixturevalue(base), encoder, alignment=alignment)
    model, adapter = step.model, step.adapter
    frozen, trained = (copy.deepcopy(part.state_dict()) for part in (model, adapter))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3)
    for number in range(2):
        loss, parts = step.loss(batch_of(width, pooled_width), draws(number))
        loss.backward()
        optimizer.step()
    assert set(parts) == ({"image", "language"} if alignment == "both" else {alignment})
    assert len(step.calls) == (0 if alignment == "language" else 2), "one pass of the UNet a step"
    assert not model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(frozen[name], tensor) for name, tensor in model.state_dict().items())
    still = [name for name, tensor in adapter.state_dict().items() if tensor.equal(trained[name])]
    assert not still


def test_the_sum_is_image_plus_weighted_language_of_the_same_draw(sd: str, encoder: str) -> None:
    losses = {}
    for alignment in ("image", "both"):
        step = Step(sd, encoder, alignment=alignment, language_weight=0.25)
        loss, parts = step.loss(batch_of(16), draws())
        losses[alignment] = loss.item(), {name: part.item() for name, part in parts.items()}
    image, both = losses["image"][0], losses["both"]
    assert both[1]["image"] == pytest.approx(image, rel=1e-6)
    assert both[0] == pytest.approx(image + 0.25 * both[1]["language"], rel=1e-6)


@pytest.mark.parametrize("null_policy", ["adapter", "zeros"])
def test_dropped_rows_see_the_empty_prompt_states_and_pooled_vector_together(
    sdxl: str, encoder: str, null_policy: str
) -> None:
    step = Step(sdxl, encoder, caption_dropout=0.5, null_policy=null_policy)
    batch = batch_of(32, 20)
    step.loss(batch, draws())[0].backward()
    states, pooled = (
        step.calls[0]["given"][2],
        step.calls[0]["named"]["added_cond_kwargs"]["text_embeds"],
    )
    of_null = step.adapter(step.null["multilingual_states"])
    if null_policy == "zeros":
        of_null = [torch.zeros_like(part) for part in of_null]
    dropped = [torch.allclose(row, of_null[0][0], atol=1e-6) for row in states]
    assert dropped == [torch.allclose(row, of_null[1][0], atol=1e-6) for row in pooled]
    assert 0 < sum(dropped) < ROWS
    sizes = step.calls[0]["named"]["added_cond_kwargs"]["time_ids"]
    assert torch.equal(sizes, torch.tensor([32.0, 32, 0, 0, 32, 32]).expand(ROWS, -1))


def test_language_alignment_of_the_empty_prompt_is_the_empty_english_prompt(
    sd: str, encoder: str
) -> None:
    step = Step(sd, encoder, alignment="language", caption_dropout=1.0)
    native = torch.ones(ROWS, dtype=torch.bool)  # nobody translates them, but "" is "" anywhere
    loss, _ = step.loss(batch_of(16, native=native), draws())
    states, _ = step.adapter(step.null["multilingual_states"])
    expected = (states - step.null["english_states"]).square().mean()
    torch.testing.assert_close(loss, expected)


def test_only_english_captions_and_their_translations_have_a_teacher(sd: str, encoder: str) -> None:
    """A German caption that is no translation counts for the picture and not for the states."""
    step = Step(sd, encoder, alignment="language", caption_dropout=0.0)
    native = torch.tensor([True, False, True, False, True, False])
    language = torch.tensor([[True, False]] * 2 + [[False, True]] * 4)
    english = torch.tensor([True] * 5 + [False])
    batch = batch_of(16, native=native, has_language=language, has_english=english)
    loss, _ = step.loss(batch, draws())
    rows = torch.tensor([0, 1, 3])
    chosen = language.int().argmax(dim=1)
    states, _ = step.adapter(batch["multilingual_states"][torch.arange(ROWS), chosen])
    expected = (states - batch["english_states"]).square()[rows].mean()
    torch.testing.assert_close(loss, expected)


def test_other_numbers_of_states_are_refused_before_the_first_step(sd: str, encoder: str) -> None:
    with pytest.raises(ValueError, match="encoder gives 16: use --num_queries 16, not 9"):
        Step(sd, encoder, alignment="both", num_queries=9)
    with pytest.raises(ValueError, match="use --max_length 16, not 8"):
        Step(sd, encoder, alignment="both", variant="seed", max_length=8)
    assert Step(sd, encoder, num_queries=9).frozen, "the diffusion loss takes any number"


def test_validation_is_deterministic_and_drops_nothing(sd: str, encoder: str) -> None:
    step = Step(sd, encoder, caption_dropout=1.0, languages=["en"])
    batch = batch_of(16)
    batch |= {name: batch[name][:, :1] for name in ("multilingual_states", "has_language")}
    first, again, other = (step.loss(batch, draws(seed), stratified=True)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    states, _ = step.adapter(batch["multilingual_states"][:, 0])
    torch.testing.assert_close(step.calls[0]["given"][2], states)
    step = Step(sd, encoder, caption_dropout=1.0, alignment="language")
    whole = step.loss(batch_of(16), draws(), stratified=True)[0]
    assert not torch.equal(whole, step.loss(batch_of(16), draws())[0])


def test_replaced_added_embedding_starts_as_the_unets_and_trains_in_its_place(
    sdxl: str, encoder: str
) -> None:
    step = Step(sdxl, encoder, replace_add_embedding=True)
    adapter, original = step.adapter, step.own_embedding
    own = original.state_dict()
    assert all(torch.equal(own[n], t) for n, t in adapter.add_embedding.state_dict().items())
    assert step.model.add_embedding is adapter.add_embedding
    step.model.add_embedding = original
    before = step.loss(batch_of(32, 20), draws())[0]
    step.model.add_embedding = adapter.add_embedding
    loss, _ = step.loss(batch_of(32, 20), draws())
    torch.testing.assert_close(loss, before)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in adapter.add_embedding.parameters())
    assert all(p.grad is None for p in original.parameters())


def test_pixart_predicts_noise_under_the_adapters_states_and_the_encoders_mask(
    pixart: str, encoder: str
) -> None:
    step = Step(pixart, encoder, english_states=False, caption_dropout=0.5)
    mask = torch.arange(TOKENS) < torch.arange(3, 3 + ROWS)[:, None]
    batch = batch_of(16, multilingual_mask=torch.stack([mask, ~mask], dim=1))
    loss, _ = step.loss(batch, draws())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in step.adapter.parameters())
    assert all(p.grad is None for p in step.model.parameters())
    states, given = step.calls[0]["given"][1], step.calls[0]["named"]["encoder_attention_mask"]
    null = step.adapter(step.null["multilingual_states"])[0][0]
    dropped = [torch.allclose(row, null, atol=1e-6) for row in states]
    assert 0 < sum(dropped) < ROWS
    for row in range(ROWS):
        if dropped[row]:
            assert torch.equal(given[row], step.null["multilingual_mask"][0])
        else:
            assert given[row].equal(mask[row]) or given[row].equal(~mask[row])
    assert step.calls[0]["predicted"].shape[1] == 8, "noise, and a variance that is not looked at"
    changed = {**batch, "multilingual_states": batch["multilingual_states"].clone()}
    hidden = ~batch["multilingual_mask"].unsqueeze(-1)
    changed["multilingual_states"] += 5.0 * hidden
    again, _ = step.loss(changed, draws())
    torch.testing.assert_close(again, loss, msg="what the mask hides does not matter")


def test_seed_adapters_of_a_mixed_batch_have_one_graph_and_old_languages_stay(
    sd: str, encoder: str
) -> None:
    step = Step(sd, encoder, variant="seed", languages=["de", "fr"])
    only_de = torch.tensor([[True, False]] * ROWS)
    step.loss(batch_of(16, has_language=only_de), draws())[0].backward()
    gradients = [[p.grad for p in layers.parameters()] for layers in step.adapter.languages]
    assert all(g.abs().sum() > 0 for g in gradients[0])
    assert all(g is not None and g.abs().sum() == 0 for g in gradients[1]), "in the graph, by zero"
    assert build_adapter({**adapter_config(step.settings)}).language == 0
