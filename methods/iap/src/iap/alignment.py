"""One step of alignment: a batch of triplets through the English branch, the target encoder and the
target branch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crosslingual.frozen.schedule import Generators, Noising, NoisyLatents, drop_captions, one_a_row
from crosslingual.frozen.weights import freeze
from iap.config import TrainSettings
from iap.method import (
    AttentiveFeatures,
    attend,
    cross_attentions,
    expand_states,
    iap_loss,
    split_heads,
    text_space_loss,
)

Loss = tuple[Tensor, dict[str, Tensor]]


@dataclass
class Captions:
    """B pictures with K captions each, B K rows, a picture's together.

    Attributes:
        english: states of the English captions, (B, M, D).
        states: of the target captions (B K, n, D), the last of which stands `times_last` times.
        has_teacher: whether a row's English caption says the same, (B K,).
    """

    english: Tensor
    states: Tensor
    times_last: int
    has_teacher: Tensor


class Alignment:
    """What is frozen: the cross-attentions or the whole UNet, its noise schedule, the empty prompt.

    With kept queries (`english_draws`) the local branch needs the cross-attentions alone, and the
    rest of the UNet is let go. Without a UNet (`objective: text`) the states themselves are
    compared.
    """

    def __init__(
        self,
        unet: nn.Module | None,
        noising: Noising,
        null: dict[str, Tensor],
        settings: TrainSettings,
    ):
        """`null` holds english_states (M, D) and target_ids (M',).

        Raises:
            ValueError: settings that contradict one another, or layers that the UNet has not.
        """
        check_settings(settings)
        self.noising, self.settings, self.device = noising, settings, noising.device
        self.null = {name: array.to(self.device) for name, array in null.items()}
        self.features, self.layers = None, []
        if unet is not None:
            every = cross_attentions(freeze(unet), ["all"])
            chosen = cross_attentions(unet, settings.layers)
            self.layers = [(number, every[number]) for number in map(every.index, chosen)]
            if not settings.english_draws:
                self.features = AttentiveFeatures(unet, chosen)

    def autocast(self) -> torch.autocast:
        """bf16 where the settings ask for it."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.settings.mixed_precision == "bf16"
        )

    def loss(
        self,
        encoder: nn.Module,
        batch: dict[str, Tensor],
        generator: Generators,
        stratified: bool = False,
    ) -> Loss:
        """The loss of a batch of B pictures with K captions each, and its parts.

        Args:
            encoder: or the engine around it.
            batch: arrays of `TripletParts.encode`.
            generator: of all that is drawn, row by row; one a row makes what is drawn for a sample
                independent of the batch that it is in.
            stratified: for validation: timesteps in equal spans, no caption dropped.
        """
        noisy = self.noising.draw(batch, generator, stratified)
        with self.autocast():
            captions = self._captions(encoder, batch, noisy.dropped, generator)
            if not self.layers:
                student = expand_states(captions.states, captions.times_last)
                teacher = self._repeated(captions.english)
                return text_space_loss(student, teacher, captions.has_teacher)
            if self.settings.branch == "full":
                return self._full_branch(noisy, captions)
            kept = self._english_branch(batch, noisy, captions.english, generator)
            return self._local_branch(*kept, captions)

    def _captions(
        self, encoder: nn.Module, batch: dict[str, Tensor], dropped: Tensor, generator: Generators
    ) -> Captions:
        times = self.settings.captions_per_pass
        english = batch["english_states"].to(self.device, torch.float32)
        english = drop_captions(english, self.null["english_states"].float()[None], dropped)
        # A dropped row has a teacher in any case: the English encoder's empty prompt.
        has_teacher = (batch["has_english"] & ~batch["native"]).to(self.device) | dropped
        chosen = choose_languages(batch["has_language"], generator, times)
        rows = torch.arange(len(chosen))[:, None]
        ids = batch["target_ids"][rows, chosen].flatten(0, 1).to(self.device)
        ids = drop_captions(ids, self.null["target_ids"][None], self._repeated(dropped))
        states, times_last = encoder(ids.long())
        return Captions(english, states, times_last, self._repeated(has_teacher))

    def _repeated(self, array: Tensor) -> Tensor:
        """A row a picture to a row a caption."""
        times = self.settings.captions_per_pass
        return array if times == 1 else array.repeat_interleave(times, dim=0)

    @torch.no_grad()
    def _english_branch(
        self,
        batch: dict[str, Tensor],
        noisy: NoisyLatents,
        english: Tensor,
        generator: Generators,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The chosen layers' queries (B, H, P, W / H) and outputs (B, P, W): of a pass, or of the
        kept queries of one.
        """
        if self.features is not None:
            self.features.run(noisy.latents, noisy.timesteps, english, stop_early=True)
            return self.features.queries, self.features.outputs
        kept = [batch[f"queries_{number}"] for number, _ in self.layers]
        num_rows, num_draws = kept[0].shape[:2]
        rows = one_a_row(generator, num_rows)
        draws = torch.cat([torch.randint(num_draws, (1,), generator=row) for row in rows])
        queries, outputs = [], []
        for stored, (_, layer) in zip(kept, self.layers, strict=True):
            query = stored[torch.arange(num_rows), draws].to(self.device, torch.float32)
            queries.append(split_heads(query, layer.heads))
            outputs.append(attend(layer, queries[-1], english))
        return queries, outputs

    def _local_branch(
        self, queries: list[Tensor], outputs: list[Tensor], captions: Captions
    ) -> Loss:
        student = [
            attend(layer, self._repeated(query), captions.states, captions.times_last)
            for query, (_, layer) in zip(queries, self.layers, strict=True)
        ]
        teacher = [self._repeated(output) for output in outputs]
        return self._compare(student, teacher, captions)

    def _full_branch(self, noisy: NoisyLatents, captions: Captions) -> Loss:
        features, stop_early = self.features, not self.settings.noise_weight
        latents, timesteps = noisy.latents, noisy.timesteps
        with torch.no_grad():
            eps = features.run(latents, timesteps, captions.english, stop_early=stop_early)
        teacher = [self._repeated(output) for output in features.outputs]
        teacher_eps = None if stop_early else self._repeated(eps)
        student_eps = features.run(
            self._repeated(latents),
            self._repeated(timesteps),
            expand_states(captions.states, captions.times_last),
            stop_early=stop_early,
        )
        return self._compare(features.outputs, teacher, captions, student_eps, teacher_eps)

    def _compare(
        self,
        student: list[Tensor],
        teacher: list[Tensor],
        captions: Captions,
        student_eps: Tensor | None = None,
        teacher_eps: Tensor | None = None,
    ) -> Loss:
        return iap_loss(
            student,
            teacher,
            captions.has_teacher,
            distance=self.settings.distance,
            normalise=self.settings.normalise,
            student_eps=student_eps,
            teacher_eps=teacher_eps,
            noise_weight=self.settings.noise_weight,
        )


def check_settings(settings: TrainSettings) -> None:
    """Refuses settings that contradict one another.

    Raises:
        ValueError: naming them.
    """
    is_full = settings.branch == "full" and settings.objective == "attention"
    if settings.noise_weight and not is_full:
        raise ValueError("noise_weight needs --branch full: the local branch predicts no noise")
    if settings.english_draws and is_full:
        raise ValueError(
            "english_draws keeps queries for the local branch: set it to 0 for --branch full"
        )
    if settings.captions_per_pass < 1:
        raise ValueError("captions_per_pass must be at least 1")


def choose_languages(has_language_BN: Tensor, generator: Generators, times: int) -> Tensor:
    """K = `times` languages a row (B, K), drawn evenly from those that the row has: each once
    before any stands twice.

    Raises:
        ValueError: a row has none.
    """
    if not bool(has_language_BN.any(dim=1).all()):
        raise ValueError(
            "a sample has no caption in any language that trains: choose others by "
            "--target_language"
        )
    chosen = []
    rows = zip(has_language_BN, one_a_row(generator, len(has_language_BN)), strict=True)
    for has_N, row in rows:
        there = has_N.nonzero().flatten()
        order = there[torch.randperm(len(there), generator=row)]
        chosen.append(order[torch.arange(times) % len(order)])
    return torch.stack(chosen)
