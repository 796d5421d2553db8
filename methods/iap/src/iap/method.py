"""IAP: a text encoder for another language, aligned with the English one through pictures.

Hu et al., "Efficient Cross-Lingual Transfer for Chinese Stable Diffusion with Images as Pivots",
arXiv 2305.11540. Only the target-language encoder trains; UNet, VAE and English encoder are frozen.
The loss matches the attentive features: the outputs of the UNet's cross-attention for the English
caption and for the target caption, over one noisy picture. There is no public code: branch, layers
and distance are settings here, and the README compares them.

Shapes: B rows, L tokens of a target caption, M tokens of a prompt, C encoder width, D
cross-attention width, H heads, P positions of a layer's grid, W a layer's width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Distance = Literal["mse", "cosine", "smooth_l1"]


class PooledHead(nn.Module):
    """The pooled vector of bases that take one: a linear layer on the first token's state. The
    paper's base has none.
    """

    def __init__(self, width: int, pooled_width: int):
        """D and P."""
        super().__init__()
        self.linear = nn.Linear(width, pooled_width)

    def forward(self, states_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """The states as they are, and (B, P)."""
        return states_BLD, self.linear(states_BLD[:, 0])


def build_adapter(config: dict[str, Any]) -> PooledHead:
    """The head of an export for a base that takes a pooled vector, after its text encoder."""
    return PooledHead(config["width"], config["pooled_width"])


class TargetEncoder(nn.Module):
    """Body, LayerNorm, linear: the names and formula of `transformers.AltCLIPTextModel`, which
    stock diffusers loads.
    """

    def __init__(
        self,
        body: nn.Module,
        encoder_width: int,
        width: int,
        eps: float,
        pad_id: int,
        pooled_width: int | None = None,
    ):
        """Puts a new head, C to D, on `body`, an XLM-R without a pooler, which takes ids and mask
        and returns `last_hidden_state` (B, L, C); `eps` belongs to the LayerNorm. With
        `pooled_width`, for bases that take a pooled vector, another head makes it from a state.
        """
        super().__init__()
        self.roberta = body
        self.pre_LN = nn.LayerNorm(encoder_width, eps=eps)
        self.transformation = nn.Linear(encoder_width, width)
        # unit variance, like the output of CLIP's last LayerNorm, which the UNet was trained on
        nn.init.normal_(self.transformation.weight, std=encoder_width**-0.5)
        nn.init.zeros_(self.transformation.bias)
        self.pad_id = pad_id
        self.pooled = PooledHead(width, pooled_width) if pooled_width else None

    def forward(self, ids_BM: Tensor) -> tuple[Tensor, int]:
        """States of captions padded on the right, without the repeated states of padding.

        Padded positions of XLM-R have the same token, the same position id and masked keys, so
        their states are equal, and only one of them is computed.

        Args:
            ids_BM: token ids; every caption ends before the last position or fills all of them.

        Returns:
            (B, n, D), n <= M, and how often the last of the n positions occurs in the prompt:
            `expand_states` gives all M.
        """
        mask_BM = ids_BM.ne(self.pad_id)
        num_tokens = ids_BM.shape[1]
        kept = min(int(mask_BM.sum(dim=1).max()) + 1, num_tokens)
        mask = mask_BM[:, :kept].long()
        states = self.roberta(ids_BM[:, :kept], attention_mask=mask).last_hidden_state
        return self.project(states), num_tokens - kept + 1

    def project(self, states_BnC: Tensor) -> Tensor:
        """Applies the head: (B, n, C) to (B, n, D)."""
        return self.transformation(self.pre_LN(states_BnC)).float()


def expand_states(states_BnD: Tensor, times_last: int) -> Tensor:
    """Returns all M positions of a prompt (B, M, D) from the output of `TargetEncoder`."""
    last = states_BnD[:, -1:].expand(-1, times_last - 1, -1)
    return torch.cat([states_BnD, last], dim=1)


def choose_layers(
    attentions: Sequence[tuple[str, nn.Module]], layers: Sequence[str]
) -> list[tuple[int, nn.Module]]:
    """The chosen cross-attentions of a UNet with their numbers, in the order in which they run.

    Args:
        attentions: all cross-attentions by name; what precedes the first `_` of a name is its part,
            such as `down` in `down_blocks.0...`.
        layers: `all`, any of `down`, `mid`, `up`, or numbers in that order.

    Raises:
        ValueError: this UNet has no layer of such a name or number.
    """
    parts = [name.split("_")[0] for name, _ in attentions]
    chosen: set[int] = set()
    for layer in layers:
        if layer.isdecimal() and int(layer) < len(parts):
            chosen.add(int(layer))
        elif layer == "all" or layer in parts:
            chosen |= {n for n, part in enumerate(parts) if layer in ("all", part)}
        else:
            raise ValueError(
                f"the denoiser has no cross-attention {layer!r}: layers are all, "
                f"{', '.join(dict.fromkeys(parts))}, or 0 to {len(parts) - 1}"
            )
    if not chosen:
        raise ValueError("layers is empty: name the cross-attentions, such as --layers all")
    return [(number, attentions[number][1]) for number in sorted(chosen)]


class _PassIsOver(Exception):  # noqa: N818, no error
    """The last chosen layer of a pass has run; the rest is not needed."""


class AttentiveFeatures:
    """Runs a UNet and records the queries and outputs of its chosen cross-attentions.

    Attributes:
        queries: (B, H, P, W / H) per layer, after the query projection.
        outputs: (B, P, W) per layer, after the output projection, before the residual.
    """

    def __init__(self, predict: Callable[..., Tensor], attentions: list[nn.Module]):
        """Replaces the processors of the chosen `attentions` of a UNet; `predict` runs it on
        latents, timesteps and a text.
        """
        self.predict, self.attentions = predict, attentions
        self.queries: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._stops = False
        for attention in attentions:
            if attention.norm_q is not None:
                raise ValueError(
                    "this base's cross-attentions normalise their queries, which IAP does not "
                    "know: choose another base"
                )
            attention.set_processor(self._attend)

    def _attend(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        query = split_heads(attention.to_q(hidden_states), attention.heads)
        bias = None if attention_mask is None else attention_mask.unsqueeze(1)
        output = attend(attention, query, encoder_hidden_states, bias=bias)
        self.queries.append(query)
        self.outputs.append(output)
        if self._stops and len(self.outputs) == len(self.attentions):
            raise _PassIsOver
        return output

    def run(
        self, latents: Tensor, timesteps: Tensor, text: Any, *, stop_early: bool
    ) -> Tensor | None:
        """Runs one pass over noisy latents (B, 4, h, w), timesteps (B,) and the text as `predict`
        takes it; replaces the features of an earlier pass.

        Returns:
            The predicted noise (B, 4, h, w), or None with `stop_early`, which ends the pass after
            the last chosen layer.
        """
        self.queries, self.outputs, self._stops = [], [], stop_early
        try:
            return self.predict(latents, timesteps, text)
        except _PassIsOver:
            return None


def split_heads(projected_BTW: Tensor, heads: int) -> Tensor:
    """Splits (B, T, W) into heads (B, H, T, W / H)."""
    return projected_BTW.unflatten(-1, (heads, -1)).transpose(1, 2)


def mask_bias(mask_Bn: Tensor | None) -> Tensor | None:
    """What is added to the logits of keys (B, 1, 1, n) so that masked ones do not count, as
    diffusers adds it; None where no mask is given.
    """
    return None if mask_Bn is None else -10000.0 * (1.0 - mask_Bn.float())[:, None, None]


def attend(
    attention: nn.Module,
    query: Tensor,
    states_BnD: Tensor,
    times_last: int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """A cross-attention's output (B, P, W) for given queries: K, V, attention, output projection.

    Args:
        attention: the attention layer, from diffusers.
        query: (B, H, P, W / H).
        states_BnD: states of the text.
        times_last: how often the last state occurs in the prompt; m equal keys weigh as much as one
            whose logit is larger by ln m.
        bias: of a mask, under which repeated states of padding do not count.
    """
    key = split_heads(attention.to_k(states_BnD), attention.heads)
    value = split_heads(attention.to_v(states_BnD), attention.heads)
    bias = _counted(query, key, times_last, bias)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attention.to_out[0](mixed.transpose(1, 2).flatten(2))


def _counted(query: Tensor, key: Tensor, times_last: int, bias: Tensor | None) -> Tensor | None:
    if bias is not None:
        return bias.to(query.dtype)
    if times_last > 1:
        bias = query.new_zeros(1, 1, 1, key.shape[2])
        bias[..., -1] = math.log(times_last)
    return bias


def clip_attend(
    patches_BNP: Tensor,
    states_BnP: Tensor,
    scale: float,
    times_last: int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """What a picture's patches read of a caption in CLIP's joint space: (B, N, P), in fp32.

    A_i = sum_j softmax_j(scale cos(patch_i, state_j)) state_j. The projections are CLIP's own, so
    nothing here trains; the values keep their lengths, which the UNet reads later.

    Args:
        patches_BNP: projected patch states, the queries.
        states_BnP: projected token states, keys and values.
        scale: the inverse of CLIP's temperature.
        times_last, bias: see `attend`.
    """
    values = states_BnP.float()[:, None]
    query, key = F.normalize(patches_BNP.float()[:, None], dim=-1), F.normalize(values, dim=-1)
    bias = _counted(query, key, times_last, bias)
    return F.scaled_dot_product_attention(query, key, values, attn_mask=bias, scale=scale)[:, 0]


def row_distances(student: Tensor, teacher: Tensor, distance: Distance, normalise: bool) -> Tensor:
    """The distance of each row's features (B, T, W), in fp32: (B,).

    Args:
        student, teacher: features of one layer.
        distance: `mse`; `smooth_l1`, squared up to 1 and linear beyond; `cosine`, 1 - cos of the
            vectors at each position.
        normalise: divides both by the standard deviation of the row's teacher features, so that
            layers and timesteps of unequal scale count equally. Each row has its own, so that its
            weight does not depend on its batch.
    """
    student, teacher = student.float(), teacher.float()
    if distance == "cosine":
        return 1.0 - F.cosine_similarity(student, teacher, dim=-1).mean(dim=1)
    if normalise:
        scale = teacher.flatten(1).std(dim=1).clamp(min=1e-6).view(-1, 1, 1)
        student, teacher = student / scale, teacher / scale
    measure = F.mse_loss if distance == "mse" else F.smooth_l1_loss
    return measure(student, teacher, reduction="none").flatten(1).mean(dim=1)


def mean_over(errors_B: Tensor, rows_B: Tensor) -> Tensor:
    """The mean over the chosen rows, or 0 without any, so that every rank has the same graph."""
    return (errors_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def iap_loss(
    student: list[Tensor],
    teacher: list[Tensor],
    has_teacher_B: Tensor,
    *,
    distance: Distance = "mse",
    normalise: bool = True,
    student_eps: Tensor | None = None,
    teacher_eps: Tensor | None = None,
    noise_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The distance between both languages' attentive features, averaged over layers and rows.

    L = mean_layers mean_rows d(A_target, A_english) + w * mean_rows (eps_target - eps_english)^2

    Args:
        student, teacher: outputs of every chosen cross-attention, (B, P, W) each.
        has_teacher_B: whether a row's captions translate each other; other rows do not count.
        distance, normalise: see `row_distances`.
        student_eps, teacher_eps: both noise predictions (B, 4, h, w), for `branch: full`.
        noise_weight: w.
    """
    rows_B = has_teacher_B.float()
    pairs = zip(student, teacher, strict=True)
    layers = [mean_over(row_distances(s, t, distance, normalise), rows_B) for s, t in pairs]
    loss = torch.stack(layers).mean()
    parts = {"attention": loss.detach()}
    if noise_weight:
        squared = (student_eps.float() - teacher_eps.float()).square().flatten(1).mean(dim=1)
        noise = mean_over(squared, rows_B)
        loss, parts["noise"] = loss + noise_weight * noise, noise.detach()
    return loss, parts


def text_space_loss(
    student_BMD: Tensor, teacher_BMD: Tensor, has_teacher_B: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The baseline: squared error between the states of both encoders, position by position,
    without picture or UNet.

    Raises:
        ValueError: the two differ in number or width.
    """
    if student_BMD.shape != teacher_BMD.shape:
        raise ValueError(
            f"the target encoder's states are {tuple(student_BMD.shape)}, the English encoder's "
            f"{tuple(teacher_BMD.shape)}: set --max_length {teacher_BMD.shape[1]}"
        )
    squared = (student_BMD.float() - teacher_BMD.float()).square().flatten(1).mean(dim=1)
    loss = mean_over(squared, has_teacher_B.float())
    return loss, {"text": loss.detach()}
