"""What a training step of a diffusion model draws: latent, noise, timestep, dropped captions, and a
language for each row.

Every row draws from a generator that the caller passes in, so that what a sample sees does not
depend on the batch, the micro-step or the process that it is in.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]  # one for all rows, or one for each row

# Samplers whose noise is DDPM's, with the betas of their config. Training needs only the betas.
DDPM_LIKE = (
    "DDPMScheduler DDPMParallelScheduler DDIMScheduler DDIMParallelScheduler PNDMScheduler "
    "LMSDiscreteScheduler EulerDiscreteScheduler EulerAncestralDiscreteScheduler "
    "HeunDiscreteScheduler KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler "
    "DPMSolverMultistepScheduler DPMSolverSinglestepScheduler DPMSolverSDEScheduler "
    "DEISMultistepScheduler UniPCMultistepScheduler SASolverScheduler LCMScheduler TCDScheduler"
).split()
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
PREDICTIONS = ("epsilon", "v_prediction")
_REQUIRED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
_USED = (*_REQUIRED, "trained_betas", "rescale_betas_zero_snr")


class Latents(NamedTuple):
    """The latents of a VAE.

    Attributes:
        channels: of a latent.
        scale: (latent - shift) * scale has about unit variance.
        shift: 0 for most VAEs.
        downscale: pixels of a picture's edge for each position of the latent's edge.
    """

    channels: int
    scale: float
    shift: float = 0.0
    downscale: int = 8


class Process(Protocol):
    """How a base's latents become noise. A family of another kind (flow matching) brings its own
    class with these three methods.

    Attributes:
        last_timestep: of the most noise, where sampling starts.
    """

    last_timestep: float

    def draw_timesteps(self, rows: Sequence[torch.Generator], num_positions: int) -> Tensor:
        """A random timestep for each row (B,), for latents of `num_positions` = h w positions."""

    def spread_timesteps(self, num_rows: int, num_positions: int) -> Tensor:
        """Timesteps in equal spans (B,), for a validation whose loss can be compared."""

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents, and the target that an ideal prediction equals, both (B, C, h, w)."""


class Diffusion:
    """DDPM's process, x_t = a x + s e, whose model predicts the noise e or the velocity a e - s x.

    Attributes:
        alphas_cumprod: a squared, of each timestep (T,).
        predicts_velocity: whether the target is the velocity (Salimans and Ho 2022).
    """

    def __init__(self, scheduler: Any):
        """By a DDPMScheduler of diffusers."""
        self.scheduler, self.alphas_cumprod = scheduler, scheduler.alphas_cumprod
        self.num_timesteps = int(scheduler.config.num_train_timesteps)
        self.last_timestep = self.num_timesteps - 1
        self.predicts_velocity = scheduler.config.prediction_type == "v_prediction"

    def draw_timesteps(self, rows: Sequence[torch.Generator], num_positions: int) -> Tensor:
        """A timestep for each row, all of them equally likely."""
        return torch.cat([torch.randint(self.num_timesteps, (1,), generator=row) for row in rows])

    def spread_timesteps(self, num_rows: int, num_positions: int) -> Tensor:
        """The middle of each of `num_rows` equal spans."""
        return ((torch.arange(num_rows) + 0.5) / num_rows * self.num_timesteps).long()

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents and the target."""
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        if self.predicts_velocity:
            return noisy, self.scheduler.get_velocity(clean, noise, timesteps)
        return noisy, noise


def read_diffusion(config: Mapping[str, Any], base: str) -> Diffusion:
    """The process that a base, named in errors, was trained with, by the config of its sampler.

    Raises:
        ValueError: a sampler, a schedule or a kind of prediction that this code does not know.
    """
    import diffusers

    name = config.get("_class_name", "")
    if name not in DDPM_LIKE:
        raise ValueError(
            f"{base} has the schedule {name or 'of an unnamed class'}, which this code does not "
            "know: it trains on DDPM's and its samplers' (DDIM, PNDM, Euler, DPMSolver, UniPC ...)"
        )
    used = {key: config[key] for key in _USED if key in config}
    if absent := set(_REQUIRED) - set(used):  # as in files of earlier versions of diffusers
        defaults = inspect.signature(getattr(diffusers, name).__init__).parameters
        used |= {key: defaults[key].default for key in absent}
    if config.get("use_flow_sigmas"):
        raise ValueError(f"{base} samples by flow matching (use_flow_sigmas), not by diffusion")
    if used["prediction_type"] not in PREDICTIONS:
        raise ValueError(
            f"{base} predicts {used['prediction_type']!r}; known are {' and '.join(PREDICTIONS)}"
        )
    if used.get("trained_betas") is None and used["beta_schedule"] not in BETA_SCHEDULES:
        raise ValueError(
            f"{base} has the beta_schedule {used['beta_schedule']!r}; known are "
            f"{', '.join(BETA_SCHEDULES)}"
        )
    if used.get("rescale_betas_zero_snr") and used["prediction_type"] == "epsilon":
        raise ValueError(
            f"{base} predicts the noise and has zero terminal SNR (rescale_betas_zero_snr), where "
            "the noise is all that the model sees: only v_prediction goes with it"
        )
    return Diffusion(diffusers.DDPMScheduler(**used))


@dataclass(frozen=True)
class FlowMatching:
    """Flow matching, x_s = (1 - s) x + s e, whose model predicts the velocity e - x (Lipman et al.,
    arXiv 2210.02747; Esser et al., arXiv 2403.03206).

    A time is s = k u / (1 + (k - 1) u), where u is the logistic function of a standard normal
    number: what diffusers' training script of SD 3 draws (`weighting_scheme` logit_normal, then the
    sampler's shift k), without rounding it to a grid of 1,000 times. Models are told 1000 s.

    Attributes:
        shift: k, where it does not depend on the picture's size.
        dynamic_shift: where it does (FLUX.1-dev): log k of 256 and of 4,096 tokens, linear between
            and beyond; a token is 2 x 2 positions of a latent.
    """

    shift: float = 1.0
    dynamic_shift: tuple[float, float] | None = None
    last_timestep = 1000.0

    def draw_timesteps(self, rows: Sequence[torch.Generator], num_positions: int) -> Tensor:
        """A time for each row by that density, in 0 to 1000."""
        normal = torch.cat([torch.randn(1, generator=row) for row in rows])
        return self._shifted(normal.sigmoid(), num_positions)

    def spread_timesteps(self, num_rows: int, num_positions: int) -> Tensor:
        """The middle of each of `num_rows` spans of equal probability."""
        middles = (torch.arange(num_rows) + 0.5) / num_rows
        return self._shifted(torch.special.ndtri(middles).sigmoid(), num_positions)

    def _shifted(self, u: Tensor, num_positions: int) -> Tensor:
        shift = self.shift
        if self.dynamic_shift is not None:
            low, high = self.dynamic_shift
            shift = math.exp(low + (high - low) * (num_positions / 4 - 256) / (4096 - 256))
        return 1000 * shift * u / (1 + (shift - 1) * u)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents and the velocity."""
        s = (timesteps / 1000).view(-1, 1, 1, 1)
        return (1 - s) * clean + s * noise, noise - clean


def read_flow(config: Mapping[str, Any], base: str) -> FlowMatching:
    """The process that a base, named in errors, was trained with, by the config of its sampler.

    Raises:
        ValueError: a sampler that is not of flow matching, or one that this code does not know.
    """
    name = config.get("_class_name", "")
    if name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"):
        if not config.get("use_dynamic_shifting"):
            return FlowMatching(float(config.get("shift", 1.0)))
        logs = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
        return FlowMatching(dynamic_shift=logs)
    if name in DDPM_LIKE and config.get("use_flow_sigmas"):  # Sana's, by a sampler of diffusion
        if config.get("prediction_type") == "flow_prediction":
            return FlowMatching(float(config.get("flow_shift", 1.0)))
        raise ValueError(
            f"{base} samples by flow matching (use_flow_sigmas) and predicts "
            f"{config.get('prediction_type')!r}; known is flow_prediction"
        )
    raise ValueError(
        f"{base} has the schedule {name or 'of an unnamed class'}, and its denoiser was trained by "
        "flow matching: known are FlowMatchEulerDiscreteScheduler, and samplers with "
        "use_flow_sigmas and flow_prediction"
    )


@dataclass
class NoisyLatents:
    """What every pass of a step shares.

    Attributes:
        latents: noisy, (B, C, h, w).
        timesteps: (B,).
        target: what an ideal prediction equals, (B, C, h, w).
        dropped: the rows whose caption is dropped (B,).
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    dropped: Tensor


@dataclass
class Noising:
    """What a training step draws on a base; usually made by `Base.schedule`.

    Attributes:
        process: how latents become noise.
        latents: of the base's VAE.
        device: of what is drawn.
        caption_dropout: share of rows that see the empty prompt.
        noise_offset: strength of a per-channel shift of the noise.
    """

    process: Process
    latents: Latents
    device: torch.device
    caption_dropout: float = 0.0
    noise_offset: float = 0.0

    def draw(
        self, batch: dict[str, Tensor], generator: Generators, stratified: bool = False
    ) -> NoisyLatents:
        """Draws a latent from the VAE's posterior, which are the batch's `latent_mean` and
        `latent_std` (B, C, h, w), and noise, timestep and drop mask for it. Where `stratified`, the
        timesteps are in equal spans and no caption is dropped, for a validation whose loss can be
        compared.
        """
        mean = batch["latent_mean"].float()
        num_rows = mean.shape[0]
        rows = one_a_row(generator, num_rows)

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(shape, generator=row) for row in rows])

        noise = normal(*mean.shape[1:])
        clean = mean + batch["latent_std"].float() * normal(*mean.shape[1:])
        clean = (clean - self.latents.shift) * self.latents.scale
        if self.noise_offset:
            noise += self.noise_offset * normal(mean.shape[1], 1, 1)
        num_positions = mean.shape[-2] * mean.shape[-1]
        if stratified:
            timesteps = self.process.spread_timesteps(num_rows, num_positions)
            dropped = torch.zeros(num_rows, dtype=torch.bool)
        else:
            timesteps = self.process.draw_timesteps(rows, num_positions)
            dropped = draw_dropped(rows, self.caption_dropout)
        noisy, target = self.process.add_noise(clean, noise, timesteps)
        noisy = noisy.to(self.device, memory_format=torch.channels_last)
        placed = (part.to(self.device) for part in (timesteps, target, dropped))
        return NoisyLatents(noisy, *placed)

    def pure(
        self, num_rows: int, resolution: int, generator: Generators, stratified: bool = False
    ) -> NoisyLatents:
        """Pure noise at the last timestep for each row, of the size of pictures of `resolution`
        pixels: what sampling starts from. Without a picture there is no target; it is 0.
        """
        edge = resolution // self.latents.downscale
        rows = one_a_row(generator, num_rows)
        shape = self.latents.channels, edge, edge
        noise = torch.stack([torch.randn(shape, generator=row) for row in rows])
        timesteps = torch.full((num_rows,), self.process.last_timestep)
        dropped = draw_dropped(rows, 0.0 if stratified else self.caption_dropout)
        placed = (part.to(self.device) for part in (timesteps, torch.zeros_like(noise), dropped))
        return NoisyLatents(noise.to(self.device, memory_format=torch.channels_last), *placed)


def one_a_row(generator: Generators, num_rows: int) -> Sequence[torch.Generator]:
    """A generator for each row; the same one for all rows where there is only one."""
    return [generator] * num_rows if isinstance(generator, torch.Generator) else generator


def draw_dropped(rows: list[torch.Generator], share: float) -> Tensor:
    """Which rows lose their caption, each with the chance `share`: (B,)."""
    return torch.cat([torch.rand(1, generator=row) for row in rows]) < share


def choose_language(has_language_BN: Tensor, generator: Generators) -> Tensor:
    """One language for each row (B,), all languages that the row has being equally likely.

    Raises:
        ValueError: a row has none.
    """
    if not bool(has_language_BN.any(dim=1).all()):
        raise ValueError(
            "a sample has no caption in any language that trains: choose others by --languages"
        )
    rows = zip(has_language_BN.float(), one_a_row(generator, len(has_language_BN)), strict=True)
    return torch.cat([torch.multinomial(has_N, 1, generator=row) for has_N, row in rows])


def drop_captions(states_B: Tensor, null: Tensor, dropped_B: Tensor) -> Tensor:
    """Puts the empty prompt's states (or pooled vector) in the dropped rows; call it for both, so
    that a row loses both together.
    """
    shape = (-1, *(1 for _ in states_B.shape[1:]))
    return torch.where(dropped_B.view(shape), null.to(states_B.dtype), states_B)
