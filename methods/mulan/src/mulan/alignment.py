"""One step of alignment: a batch of frozen outputs through the adapter and, for the image term,
through the frozen UNet.

The adapter runs once a step: the diffusion loss and the English encoder's states see the same
output. The UNet keeps activations but no weight gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.frozen.schedule import (
    Generators,
    Noising,
    choose_language,
    drop_captions,
    one_a_row,
)
from mulan.config import TrainSettings
from mulan.denoiser import Denoiser
from mulan.method import Conditioning, image_loss, language_loss, mulan_loss


class Alignment:
    """What every step uses: the denoiser with its noise schedule, and the empty prompt's states."""

    def __init__(
        self,
        denoiser: Denoiser | None,
        noising: Noising | None,
        null: dict[str, Tensor],
        settings: TrainSettings,
        config: dict[str, Any],
        device: torch.device,
    ):
        """Keeps what is given.

        Args:
            denoiser, noising: None where captions alone train.
            null: of `FrozenParts.null`.
            settings: of the run.
            config: the adapter's.
            device: where the step runs.

        Raises:
            ValueError: language alignment, and the adapter gives another number of states than the
                English encoder.
        """
        self.denoiser, self.noising, self.settings = denoiser, noising, settings
        self.device = device
        self.null = {name: self._placed(tensor)[None] for name, tensor in null.items()}
        self.numbers = None  # of the languages that train, among the adapter's
        if config["variant"] == "seed":
            places = [config["languages"].index(language) for language in settings.languages]
            self.numbers = torch.tensor(places, device=device)
        if settings.alignment != "image":
            is_seed = config["variant"] == "seed"
            given = config["max_length"] if is_seed else config["num_queries"]
            wanted = null["english_states"].shape[0]
            if given != wanted:
                name = "max_length" if is_seed else "num_queries"
                raise ValueError(
                    f"alignment {settings.alignment} compares states position by position, and the "
                    f"English encoder gives {wanted}: use --{name} {wanted}, not {given}"
                )

    def _placed(self, array: Tensor) -> Tensor:
        return array.to(self.device, torch.float32 if array.is_floating_point() else None)

    def loss(
        self,
        adapter: nn.Module,
        batch: dict[str, Tensor],
        generator: Generators,
        stratified: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts.

        Args:
            adapter: or the engine around it.
            batch: arrays of `crosslingual.features.frozen_parts` (fp16 as stored).
            generator: of all that is drawn, row by row; one a row makes what is drawn for a sample
                independent of the batch that it is in.
            stratified: for validation: timesteps in equal spans, no caption dropped.
        """
        num_rows = len(batch["has_language"])
        noisy = None
        if self.noising is None:
            dropped = self._dropped(num_rows, generator, stratified)
        else:
            noisy = self.noising.draw(batch, generator, stratified)
            dropped = noisy.dropped
        chosen = choose_language(batch["has_language"], generator)
        rows = torch.arange(num_rows)
        states = self._or_null(batch, "multilingual_states", (rows, chosen), dropped)
        if self.numbers is None:
            conditioning = adapter(states)
        else:
            conditioning = adapter(states, self.numbers[chosen.to(self.device)])
        if self.settings.null_policy == "zeros":
            conditioning = _zero_rows(conditioning, dropped)
        image = language = None
        if noisy is not None:
            mask = None
            if "multilingual_mask" in batch:
                mask = self._or_null(batch, "multilingual_mask", (rows, chosen), dropped)
            image = image_loss(self.denoiser.predict(noisy, conditioning, mask), noisy.target)
        if self.settings.alignment != "image":
            language = self._language_loss(conditioning, batch, chosen, dropped)
        return mulan_loss(image, language, self.settings.language_weight)

    def _dropped(self, num_rows: int, generator: Generators, stratified: bool) -> Tensor:
        """The rows that see the empty prompt, where no latents are drawn."""
        rows = one_a_row(generator, num_rows)
        chances = torch.cat([torch.rand(1, generator=row) for row in rows])
        share = 0.0 if stratified else self.settings.caption_dropout
        return (chances < share).to(self.device)

    def _or_null(self, batch: dict[str, Tensor], name: str, place: Any, dropped: Tensor) -> Tensor:
        return drop_captions(self._placed(batch[name][place]), self.null[name], dropped)

    def _language_loss(
        self, conditioning: Conditioning, batch: dict[str, Tensor], chosen: Tensor, dropped: Tensor
    ) -> Tensor:
        """Rows whose English caption says the same: English itself, or a translation of it."""
        is_english = torch.tensor([code == "en" for code in self.settings.languages])[chosen]
        has_teacher = (batch["has_english"] & (is_english | ~batch["native"])).to(self.device)
        if self.settings.null_policy == "zeros":
            has_teacher = has_teacher & ~dropped
        else:
            has_teacher = has_teacher | dropped  # the empty prompt is the same in all languages
        states = self._or_null(batch, "english_states", slice(None), dropped)
        pooled = None
        if "english_pooled" in batch:
            pooled = self._or_null(batch, "english_pooled", slice(None), dropped)
        return language_loss(conditioning, (states, pooled), has_teacher)


def _zero_rows(conditioning: Conditioning, dropped: Tensor) -> Conditioning:
    """Zeros where captions are dropped, as SDXL's own pipeline gives for an empty prompt."""
    states, pooled = conditioning
    return (
        drop_captions(states, torch.zeros_like(states[:1]), dropped),
        None if pooled is None else drop_captions(pooled, torch.zeros_like(pooled[:1]), dropped),
    )
