"""PEA-Diffusion: a small adapter after a frozen multilingual encoder, distilled through the frozen
UNet.

Ma et al., "PEA-Diffusion: Parameter-Efficient Adapter with Knowledge Distillation in non-English
Text-to-Image Generation", ECCV 2024, arXiv 2311.17086. The teacher is the English pipeline; the
student is the same UNet fed by the adapter. Both see one noisy latent, timestep, noise and drop
mask; their noise predictions and the outputs of every UNet block are matched. Where a sample has no
translation (native captions) the student learns from the noise itself.

Shapes: B batch, L tokens, C encoder width, D cross-attention width, P pooled width.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PeaAdapter(nn.Module):
    """LN -> Linear -> GELU -> Linear -> GELU -> Linear, for bases without a pooled text vector (SD
    1.x, 2.x).

    At `encoder_width` 1024, `hidden_width` 2048, `width` 768 it has 7,866,368 parameters. Its
    parameters have the names of the published files. Some of these have 5 linear layers, or 2 with
    biases.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        hidden_width: int,
        *,
        num_linear: int = 3,
        bias: bool = False,
    ):
        """C, D, the width of the hidden layers, and the number of linear layers."""
        super().__init__()
        self.layernorm = nn.LayerNorm(encoder_width)
        widths = [encoder_width, *[hidden_width] * (num_linear - 1), width]
        linear = [nn.Linear(*pair, bias=bias) for pair in pairwise(widths)]
        between = [part for layer in linear[:-1] for part in (layer, nn.GELU())]
        self.projector = nn.Sequential(*between, linear[-1])

    def forward(self, states_BLC: Tensor) -> tuple[Tensor, None]:
        """Token states to cross-attention states (B, L, D)."""
        return self.projector(self.layernorm(states_BLC)), None


class PooledPeaAdapter(PeaAdapter):
    """The form for SDXL: the projector's output p gives the pooled vector, and one more linear
    layer gives the sequence.

    At 1024, 1024, pooled 1280, `width` 2048 it has 6,033,408 parameters, the paper's 6 M.
    """

    def __init__(
        self, encoder_width: int, width: int, hidden_width: int, pooled_width: int, **form: Any
    ):
        """C, D, the width of the hidden layers, P, and the form of `PeaAdapter`."""
        super().__init__(encoder_width, pooled_width, hidden_width, **form)
        self.fc = nn.Linear(pooled_width, width)

    def forward(self, states_BLC: Tensor) -> tuple[Tensor, Tensor]:
        """Token states to cross-attention states (B, L, D) and the pooled vector (B, P), the mean
        of p over tokens.
        """
        p_BLP = self.projector(self.layernorm(states_BLC))
        return self.fc(F.gelu(p_BLP)), p_BLP.mean(dim=1)


class StatesPeaAdapter(PeaAdapter):
    """The authors' form for FLUX.1, with the names of SDXL's form and another meaning: the
    projector's output, after a GELU, is the sequence, and one more linear layer gives the pooled
    vector.

    At 4672 (ByT5 XXL), 4096, `width` 4096, pooled 768 it has 55,846,784 parameters.
    """

    def __init__(
        self, encoder_width: int, width: int, hidden_width: int, pooled_width: int, **form: Any
    ):
        """C, D, the width of the hidden layers, P, and the form of `PeaAdapter`."""
        super().__init__(encoder_width, width, hidden_width, **form)
        self.fc = nn.Linear(width, pooled_width)

    def forward(self, states_BLC: Tensor) -> tuple[Tensor, Tensor]:
        """Token states to attention states (B, L, D) and the pooled vector (B, P), the mean over
        tokens.
        """
        states_BLD = F.gelu(self.projector(self.layernorm(states_BLC)))
        return states_BLD, self.fc(states_BLD).mean(dim=1)


class BottleneckAdapter(nn.Module):
    """The seed paper's form, `h + Up(GELU(Down(h)))` (section 3.4); a linear layer projects h to
    the UNet's width if the widths differ.
    """

    def __init__(self, encoder_width: int, width: int, rank: int):
        """C, D and the width of the bottleneck."""
        super().__init__()
        self.to_width = nn.Linear(encoder_width, width) if encoder_width != width else nn.Identity()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states_BLC: Tensor) -> tuple[Tensor, None]:
        """Token states to cross-attention states (B, L, D)."""
        h_BLD = self.to_width(states_BLC)
        return h_BLD + self.up(F.gelu(self.down(h_BLD))), None


def build_adapter(config: dict[str, Any]) -> nn.Module:
    """The adapter that a config describes: `variant` (published | seed), widths, `pooled_width` or
    None, `rank`. Imported ones may have another number of linear layers (`num_linear`), biases
    (`bias`), and a pooled vector made of the states (`pooled_from`).
    """
    encoder_width, width = config["encoder_width"], config["width"]
    if config["variant"] == "seed":
        if config["pooled_width"]:
            raise ValueError(
                "variant seed has no pooled output, and this base takes a pooled text vector: use "
                "variant published"
            )
        return BottleneckAdapter(encoder_width, width, config["rank"])
    widths = [encoder_width, width, config["hidden_width"]]
    form = {name: config[name] for name in ("num_linear", "bias") if name in config}
    if not config["pooled_width"]:
        return PeaAdapter(*widths, **form)
    is_of_states = config.get("pooled_from") == "states"
    pooled = StatesPeaAdapter if is_of_states else PooledPeaAdapter
    return pooled(*widths, config["pooled_width"], **form)


class BlockOutputs:
    """Collects the outputs of a denoiser's blocks while it is entered.

    SD 1.x has 4 + 1 + 4 of them (down, mid, up), SDXL 3 + 1 + 3. A down block's output is its
    hidden state, not its residuals. Of a transformer that attends to text and picture together,
    only the picture's states count: teacher and student read unlike numbers of tokens.
    """

    def __init__(self, blocks: Sequence[nn.Module], read: Callable[[nn.Module, Any], Tensor]):
        """`read` takes the states that are compared from a block and what it returned."""
        self.blocks, self.read = blocks, read
        self.outputs: list[Tensor] = []

    def _keep(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        self.outputs.append(self.read(module, output))

    def __enter__(self) -> Self:
        """Starts collecting."""
        self.handles = [block.register_forward_hook(self._keep) for block in self.blocks]
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Stops collecting and keeps `outputs`."""
        for handle in self.handles:
            handle.remove()
        assert error or len(self.outputs) >= len(self.blocks), "a block ran without its hook"


def mean_over(errors_B: Tensor, rows_B: Tensor) -> Tensor:
    """The mean over the chosen rows, or 0 without any, so that every rank has the same graph."""
    return (errors_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared error of each row (B,), in fp32."""
    return (a.float() - b.float()).square().flatten(1).mean(dim=1)


def x2i_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """X2I's distance of features (Ma et al., "X2I", ICCV 2025), a number for each row: (B,).

    Each position's channels are standardised and made a distribution by a softmax at temperature 3;
    the distance is KL(student || teacher), averaged over positions. The authors' code sums over
    positions, so that its weight depends on the picture's size.

    Args:
        student, teacher: (B, L, W), or (B, W, h, w) of a UNet.
    """

    def log_shares(features: Tensor) -> Tensor:
        if features.ndim == 4:
            features = features.flatten(2).transpose(1, 2)
        features = features.float()
        deviation = features.std(dim=-1, keepdim=True).clamp(min=1e-6)
        standard = (features - features.mean(dim=-1, keepdim=True)) / deviation
        return F.log_softmax(standard / 3, dim=-1)

    ours, theirs = log_shares(student), log_shares(teacher)
    return (ours.exp() * (ours - theirs)).sum(dim=-1).mean(dim=1)


FEATURE_DISTANCES = {"mse": squared_error, "x2i": x2i_distance}


def pea_loss(
    student_eps: Tensor,
    teacher_eps: Tensor,
    target: Tensor,
    student_blocks: list[Tensor],
    teacher_blocks: list[Tensor],
    native_B: Tensor,
    feature_weight: float = 0.1,
    feature_distance: str = "mse",
    output_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The hybrid loss of the paper (section 3.3), with z = 1 for native rows and 0 for parallel
    ones.

    L = mean_{z=1} (eps_S - eps)^2 + mean_{z=0} (eps_S - eps_T)^2 + w * sum_blocks mean_{z=0} (F_S -
    F_T)^2

    Each mean is over the rows of its kind; the authors' code divides by the whole batch, which
    weights each term by its share of the rows. Errors are computed in fp32.

    Args:
        student_eps, teacher_eps, target: both predictions and their target (the noise),
            (B, 4, h, w).
        student_blocks, teacher_blocks: outputs of every UNet block.
        native_B: whether a row has no teacher.
        feature_weight: w.
        feature_distance: `mse`, the paper's, or `x2i`, which replaces (F_S - F_T)^2 by
            `x2i_distance`.
        output_weight: of the second term; the paper's is 1, and X2I's 0.
    """
    distance = FEATURE_DISTANCES[feature_distance]
    native, parallel = native_B.float(), 1.0 - native_B.float()
    denoise = mean_over(squared_error(student_eps, target), native)
    output = mean_over(squared_error(student_eps, teacher_eps), parallel)
    pairs = zip(student_blocks, teacher_blocks, strict=True)
    features = [mean_over(distance(s, t), parallel) for s, t in pairs]
    feature = torch.stack(features).sum() if features else torch.zeros_like(output)
    parts = {"native": denoise.detach(), "output": output.detach(), "feature": feature.detach()}
    return denoise + output_weight * output + feature_weight * feature, parts


def seed_loss(
    student_eps: Tensor,
    teacher_eps: Tensor,
    target: Tensor,
    native_B: Tensor,
    recon_weight: float = 1.0,
    temperature: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The seed paper's form (section 3.4): KL between teacher and student outputs + alpha *
    reconstruction.

    The paper does not say which axis the softmax runs over; here it is the positions of each
    channel, since a noise prediction has no classes. Reconstruction is the squared error to the
    noise, which equals the squared error to the picture up to a factor that depends on t.

    Args:
        student_eps, teacher_eps, target: (B, 4, h, w), as in `pea_loss`.
        native_B: rows without a teacher have no KL.
        recon_weight: alpha.
        temperature: divides the inputs of both softmaxes.
    """
    student = F.log_softmax(student_eps.float().flatten(2) / temperature, dim=-1)
    teacher = F.log_softmax(teacher_eps.float().flatten(2) / temperature, dim=-1)
    divergence = (
        F.kl_div(student, teacher, log_target=True, reduction="none").sum(dim=-1).mean(dim=1)
    )
    kl = mean_over(divergence, 1.0 - native_B.float()) * temperature**2
    recon = squared_error(student_eps, target).mean()
    return kl + recon_weight * recon, {"kl": kl.detach(), "recon": recon.detach()}
