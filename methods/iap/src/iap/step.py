"""One step of alignment: runs a batch of triplets through the English branch, the target encoder
and the target branch.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.features.frozen_parts import english_text
from crosslingual.frozen.base import Base, Conditioning
from crosslingual.frozen.memory import Estimate, estimate, predict_on_meta
from crosslingual.frozen.schedule import (
    Generators,
    Noising,
    NoisyLatents,
    drop_captions,
    one_a_row,
)
from crosslingual.frozen.weights import freeze_embeddings
from iap.clip import ClipSpace, clip_space, open_clip
from iap.encoder import add_lora, build_encoder
from iap.method import (
    AttentiveFeatures,
    attend,
    choose_layers,
    clip_attend,
    expand_states,
    iap_loss,
    mask_bias,
    mean_over,
    split_heads,
    text_space_loss,
)
from iap.settings import TrainSettings

Loss = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Frozen:
    """The frozen parts that a step uses.

    Attributes:
        noising: the base's noise schedule, on its device.
        null: the empty prompt's english_states (M, D) and target_ids (M',).
        layers: the chosen cross-attentions with their numbers; empty where the objective needs no
            UNet.
        projection: what text states pass before the cross-attentions read them.
        takes_mask: whether those are told which tokens count.
        features: runs the English pass; None if its queries come with the batch, so that the rest
            of the UNet can be freed.
        clip: the space of `objective: clip_attention`.
    """

    noising: Noising
    null: dict[str, Tensor]
    layers: list[tuple[int, nn.Module]]
    projection: nn.Module
    takes_mask: bool
    features: AttentiveFeatures | None = None
    clip: ClipSpace | None = None


@dataclass(frozen=True)
class Captions:
    """B pictures with K captions each; the B K rows keep a picture's captions together.

    Attributes:
        english: what the denoiser sees of the English captions, B rows.
        target: of the target captions, B K rows, without the repeated states of padding.
        times_last: how often the last state occurs in the prompt.
        has_teacher: whether a row's captions translate each other, (B K,).
        times: captions per picture, K.
    """

    english: Conditioning
    target: Conditioning
    times_last: int
    has_teacher: Tensor
    times: int

    def repeated(self, array: Tensor) -> Tensor:
        """Turns one row per picture into one row per caption."""
        return array if self.times == 1 else array.repeat_interleave(self.times, dim=0)


def load_frozen(
    settings: TrainSettings, base: Base, null: dict[str, Tensor], device: torch.device
) -> Frozen:
    """Loads what the objective needs of the base's UNet, or of a CLIP.

    Raises:
        ValueError: settings contradict each other, the UNet has no such layers, or the CLIP's text
            encoder is not the base's.
    """
    check_settings(settings)
    noising = base.schedule(
        device=device,
        caption_dropout=settings.caption_dropout,
        noise_offset=settings.noise_offset,
    )
    null = {name: array.to(device) for name, array in null.items()}
    if not settings.reads_unet:
        space = None
        if settings.objective == "clip_attention":
            space = clip_space(open_clip(settings, null["english_states"]), device)
        return Frozen(noising, null, [], nn.Identity(), base.text.takes_mask, clip=space)
    denoiser = base.load_denoiser(
        device, resolution=settings.resolution, mixed_precision=settings.mixed_precision
    )
    layers = choose_layers(denoiser.cross_attentions(), settings.layers)
    features = None
    if not settings.english_draws:
        chosen = [attention for _, attention in layers]
        features = AttentiveFeatures(denoiser.predict, chosen)
    projection = denoiser.text_projection()
    return Frozen(noising, null, layers, projection, base.text.takes_mask, features)


def iap_step(
    encoder: nn.Module,
    frozen: Frozen,
    batch: dict[str, Tensor],
    draws: Generators,
    settings: TrainSettings,
    stratified: bool = False,
) -> Loss:
    """Computes the loss, and its parts, for B pictures with K captions each.

    Args:
        encoder: the target encoder, or the engine around it.
        frozen: cross-attentions, noise schedule and the empty prompt.
        batch: arrays of `TripletParts.encode`.
        draws: generators of all random draws; with one per row, a sample's draws do not depend on
            the batch that it is in.
        settings: settings of the run.
        stratified: for validation: spreads timesteps over equal spans and drops no caption.
    """
    noisy = frozen.noising.draw(batch, draws, stratified)
    is_bf16 = settings.mixed_precision == "bf16"
    with torch.autocast(frozen.noising.device.type, torch.bfloat16, enabled=is_bf16):
        captions = _read_captions(encoder, frozen, batch, noisy.dropped, draws, settings)
        if settings.objective == "text":
            student = expand_states(captions.target.states, captions.times_last)
            teacher = captions.repeated(captions.english.states)
            found = text_space_loss(student, teacher, captions.has_teacher)
            return _with_pooled(found, captions, settings.pooled_weight)
        if frozen.clip is not None:
            compared = _clip_readings(frozen.clip, batch, captions)
        elif settings.branch == "full":
            compared = _full_branch(frozen, noisy, captions, bool(settings.noise_weight))
        else:
            queries, outputs = _english_branch(frozen, batch, noisy, captions, draws)
            compared = _local_branch(frozen, queries, outputs, captions)
        found = iap_loss(
            **compared,
            has_teacher_B=captions.has_teacher,
            distance=settings.distance,
            normalise=settings.normalise,
            noise_weight=settings.noise_weight,
        )
        return _with_pooled(found, captions, settings.pooled_weight)


def _with_pooled(found: Loss, captions: Captions, weight: float) -> Loss:
    """Adds the squared error of the pooled vectors, where the base takes one, or of the captions'
    embeddings in CLIP's space: no attention reads them.
    """
    if captions.target.pooled is None:
        return found
    teacher = captions.repeated(captions.english.pooled)
    squared = (captions.target.pooled.float() - teacher).square().mean(dim=1)
    pooled = mean_over(squared, captions.has_teacher.float())
    return found[0] + weight * pooled, {**found[1], "pooled": pooled.detach()}


def _read_captions(
    encoder: nn.Module,
    frozen: Frozen,
    batch: dict[str, Tensor],
    dropped: Tensor,
    draws: Generators,
    settings: TrainSettings,
) -> Captions:
    device, null, times = frozen.noising.device, frozen.null, settings.captions_per_pass
    rows = english_text(batch, device)
    empty = english_text({name: array[None] for name, array in null.items()}, device)
    english = Conditioning(
        *(
            a if a is None else drop_captions(a, e, dropped)
            for a, e in zip(rows, empty, strict=True)
        )
    )
    # A dropped row always has a teacher: the English encoder's empty prompt.
    has_teacher = (batch["has_english"] & ~batch["native"]).to(device) | dropped
    rehearsed = settings.rehearsed(settings.target_language, "target_language")
    share = settings.rehearsal or 0.0
    chosen = choose_languages(batch["has_language"], draws, times, rehearsed, share)
    rows = torch.arange(len(chosen))[:, None]
    ids = batch["target_ids"][rows, chosen].flatten(0, 1).to(device)
    ids = drop_captions(ids, null["target_ids"][None], dropped.repeat_interleave(times))
    states, times_last = encoder(ids.long())
    pooled = None if encoder.pooled is None else encoder.pooled(states)[1]
    if frozen.clip is not None:  # a caption's embedding is that of its first state, as AltCLIP's
        pooled = frozen.clip.project(states[:, 0])
    mask = ids[:, : states.shape[1]].ne(encoder.pad_id) if frozen.takes_mask else None
    target = Conditioning(states, pooled, mask)
    return Captions(english, target, times_last, has_teacher.repeat_interleave(times), times)


@torch.no_grad()
def _english_branch(
    frozen: Frozen,
    batch: dict[str, Tensor],
    noisy: NoisyLatents,
    captions: Captions,
    draws: Generators,
) -> tuple[list[Tensor], list[Tensor]]:
    """Queries (B, H, P, W / H) and outputs (B, P, W) of the chosen layers, from a pass or from
    stored queries.
    """
    if frozen.features is not None:
        text = captions.english
        frozen.features.run(noisy.latents, noisy.timesteps, text, stop_early=True)
        return frozen.features.queries, frozen.features.outputs
    kept = [batch[f"queries_{number}"] for number, _ in frozen.layers]
    num_rows, num_draws = kept[0].shape[:2]
    rows = one_a_row(draws, num_rows)
    drawn = torch.cat([torch.randint(num_draws, (1,), generator=row) for row in rows])
    queries, outputs = [], []
    english, bias = frozen.projection(captions.english.states), mask_bias(captions.english.mask)
    for stored, (_, layer) in zip(kept, frozen.layers, strict=True):
        query = stored[torch.arange(num_rows), drawn].to(english.device, torch.float32)
        queries.append(split_heads(query, layer.heads))
        outputs.append(attend(layer, queries[-1], english, bias=bias))
    return queries, outputs


def _local_branch(
    frozen: Frozen, queries: list[Tensor], outputs: list[Tensor], captions: Captions
) -> dict[str, Any]:
    """Inputs of `iap_loss`: attention to the target captions with the English pass's queries."""
    states, bias = frozen.projection(captions.target.states), mask_bias(captions.target.mask)
    student = [
        attend(layer, captions.repeated(query), states, captions.times_last, bias)
        for query, (_, layer) in zip(queries, frozen.layers, strict=True)
    ]
    return {"student": student, "teacher": [captions.repeated(output) for output in outputs]}


def _clip_readings(clip: ClipSpace, batch: dict[str, Tensor], captions: Captions) -> dict[str, Any]:
    """Inputs of `iap_loss`: what a picture's patches read of both captions in CLIP's space."""
    english, target = captions.english, captions.target
    patches = batch["clip_patches"].to(english.states.device)
    with torch.no_grad():
        states, bias = clip.project(english.states), mask_bias(english.mask)
        teacher = clip_attend(patches, states, clip.scale, bias=bias)
    states, bias = clip.project(target.states), mask_bias(target.mask)
    patches = captions.repeated(patches)
    student = clip_attend(patches, states, clip.scale, captions.times_last, bias)
    return {"student": [student], "teacher": [captions.repeated(teacher)]}


def _full_branch(
    frozen: Frozen, noisy: NoisyLatents, captions: Captions, needs_noise: bool
) -> dict[str, Any]:
    """Inputs of `iap_loss`: two passes through the UNet, which run to the end only if their noise
    predictions are needed.
    """
    features, repeated = frozen.features, captions.repeated
    run = partial(features.run, stop_early=not needs_noise)
    with torch.no_grad():
        eps = run(noisy.latents, noisy.timesteps, captions.english)
    teacher = [repeated(output) for output in features.outputs]
    text = captions.target
    if text.mask is None:
        text = text._replace(states=expand_states(text.states, captions.times_last))
    student_eps = run(repeated(noisy.latents), repeated(noisy.timesteps), text)
    compared = {"student": features.outputs, "teacher": teacher}
    if needs_noise:
        compared |= {"student_eps": student_eps, "teacher_eps": repeated(eps)}
    return compared


def estimate_memory(
    settings: TrainSettings, base: Base, altclip: dict[str, object], max_length: int
) -> Estimate:
    """Estimates the GPU memory of training from shapes alone. For the local branch it counts the
    encoder's activations, and leaves out the few of the attentions.
    """
    check_settings(settings)
    with torch.device("meta"):
        encoder = build_encoder(altclip, base.text.pooled_width)
        if not settings.train_embeddings:
            freeze_embeddings(encoder.roberta)
        if settings.train_encoder == "lora":
            add_lora(encoder, settings.lora_rank)
    unet = held = base.denoiser_on_meta() if settings.reads_unet else None
    if unet is not None and settings.english_draws:
        denoiser = base.wrap_denoiser(unet, resolution=settings.resolution)
        layers = choose_layers(denoiser.cross_attentions(), settings.layers)
        held = nn.ModuleList(layer for _, layer in layers)
    num_captions = settings.train_batch_size * settings.captions_per_pass
    captions = dataclasses.replace(settings, train_batch_size=num_captions)

    def forward(dtype: torch.dtype) -> Tensor:
        ids = torch.ones(num_captions, max_length, dtype=torch.int64)
        states = encoder.project(encoder.roberta(ids).last_hidden_state).to(dtype)
        if unet is None or settings.branch == "local":
            return states
        pooled = None if encoder.pooled is None else encoder.pooled(states)[1]
        return predict_on_meta(base, unet, captions, Conditioning(states, pooled))

    return estimate(encoder, forward, settings, held=held)


def check_settings(settings: TrainSettings) -> None:
    """Rejects settings that contradict each other.

    Raises:
        ValueError: with the settings' names.
    """
    is_full = settings.branch == "full" and settings.reads_unet
    if settings.objective == "clip_attention":
        unused = {"branch": "local", "layers": ["all"], "english_draws": 0}
        for name, value in unused.items():
            if getattr(settings, name) != value:
                raise ValueError(f"clip_attention reads no UNet: leave out --{name}")
    if settings.noise_weight and not is_full:
        raise ValueError("noise_weight needs --branch full: the local branch predicts no noise")
    if settings.english_draws and is_full:
        raise ValueError(
            "english_draws keeps queries for the local branch: set it to 0 for --branch full"
        )
    if settings.captions_per_pass < 1:
        raise ValueError("captions_per_pass must be at least 1")
    settings.rehearsed(settings.target_language, "target_language")


def choose_languages(
    has_language_BN: Tensor,
    draws: Generators,
    times: int,
    rehearsed: Sequence[bool] | None = None,
    share: float = 0.0,
) -> Tensor:
    """Draws K = `times` languages per row (B, K), uniformly from the row's languages; none repeats
    before all are used. With `rehearsed`, which of the languages are rehearsed, each of the K is
    one of these with probability `share` where the row has some, and the rest are drawn from the
    others.

    Raises:
        ValueError: a row has no language.
    """
    if not bool(has_language_BN.any(dim=1).all()):
        raise ValueError(
            "a sample has no caption in any language that trains: choose others by "
            "--target_language"
        )
    chosen = []
    is_rehearsed = torch.tensor(rehearsed or [False] * has_language_BN.shape[1])
    rows = zip(has_language_BN, one_a_row(draws, len(has_language_BN)), strict=True)
    for has_N, row in rows:
        there = has_N.nonzero().flatten()
        order = there[torch.randperm(len(there), generator=row)]
        again, others = there[is_rehearsed[there]], order[~is_rehearsed[order]]
        pool = others if len(others) else order
        found = pool[torch.arange(times) % len(pool)]
        if rehearsed is not None and len(again):
            rehearses = torch.rand(times, generator=row) < share
            # one language needs no draw
            which = torch.randint(len(again), (times,), generator=row) if len(again) > 1 else 0
            found = torch.where(rehearses, again[which], found)
        chosen.append(found)
    return torch.stack(chosen)
