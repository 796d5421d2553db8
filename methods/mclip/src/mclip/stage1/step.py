"""The losses of stage 1, and one batch's: NMT in step a, NMT + weight CTL in step b.

    NMT = -1/T sum_t [(1 - e) log p_t(y_t) + e/V sum_v log p_t(v)]      label smoothing e
    CTL = InfoNCE of the sentence vectors of translations, both ways, tau fixed

The output matrix is XLM-R's word embedding, or rows of it, and never trains. The scores' gradient,
softmax minus the smoothed label, is therefore applied to the states as soon as it is known: two
products with the vocabulary a chunk of tokens. Autograd would hold all scores, or compute them a
third time.

Source: mCLIP (ACL 2023), the enhancement of its multilingual text encoder.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mclip.contrastive import info_nce
from mclip.stage1.settings import TrainEncoderSettings

# T tokens that are predicted, C tokens of a chunk, V vocabulary, B sentences, D width


class _SmoothedNLL(torch.autograd.Function):
    """Sums over tokens: the smoothed loss, which has a gradient, and the plain one."""

    @staticmethod
    def forward(
        ctx, states_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, smoothing: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        """Computes losses and gradient from the same scores."""
        mean_D = weight_VD.mean(dim=0)  # its product with a state is the mean over all scores
        grad_TD = torch.empty_like(states_TD) if ctx.needs_input_grad[0] else None
        smoothed, plain = (states_TD.new_zeros((), dtype=torch.float32) for _ in range(2))
        for start in range(0, len(states_TD), chunk):
            states_CD, labels_C = states_TD[start : start + chunk], labels_T[start : start + chunk]
            scores_CV = torch.mm(states_CD, weight_VD.T).float()
            log_p_CV = scores_CV.log_softmax(dim=-1)
            right_C1 = labels_C[:, None]
            right_log_p_C = log_p_CV.gather(1, right_C1)[:, 0]
            lse_C = scores_CV.gather(1, right_C1)[:, 0] - right_log_p_C
            mean_log_p_C = torch.mv(states_CD, mean_D).float() - lse_C
            plain -= right_log_p_C.sum()
            smoothed -= ((1 - smoothing) * right_log_p_C + smoothing * mean_log_p_C).sum()
            if grad_TD is not None:
                grad_CV = log_p_CV.exp_()
                grad_CV.scatter_add_(
                    1, right_C1, torch.full_like(right_C1, smoothing - 1, dtype=grad_CV.dtype)
                )
                grad_TD[start : start + chunk] = torch.mm(grad_CV.to(weight_VD.dtype), weight_VD)
        if grad_TD is not None:
            ctx.save_for_backward(grad_TD.sub_(smoothing * mean_D))
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Returns the gradient that `forward` computed."""
        (grad_TD,) = ctx.saved_tensors
        return grad_TD * grad.to(grad_TD.dtype), None, None, None, None


def _mean_over_ranks(count: int, device: torch.device) -> Tensor | int:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return count
    counts = torch.tensor(float(count), device=device)
    dist.all_reduce(counts)
    return counts / dist.get_world_size()


def nmt_loss(
    states_TD: Tensor,
    labels_T: Tensor,
    weight_VD: Tensor,
    *,
    label_smoothing: float = 0.1,
    chunk_tokens: int = 256,
    scores_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Label-smoothed cross-entropy, the mean over the tokens of all ranks.

    Every rank must call it. A rank divides by the ranks' mean count of tokens, so that the average
    of the ranks' gradients, which data-parallel engines take, is the mean over all tokens.

    Args:
        states_TD: the decoder's states where a token is predicted, and nowhere else.
        labels_T: the tokens to predict.
        weight_VD: the output matrix, frozen.
        label_smoothing: e; 0 is plain cross-entropy.
        chunk_tokens: tokens whose scores are in memory at a time, twice, in fp32.
        scores_dtype: type of the products with the vocabulary; bf16 is for GPUs.

    Returns:
        The loss and its parts: `nmt` and `nll`, the same without smoothing, whose exponential is
        the perplexity.

    Raises:
        ValueError: the shapes do not fit, or the output matrix trains.
    """
    if states_TD.shape != (len(labels_T), weight_VD.shape[1]):
        raise ValueError(
            f"states {(*states_TD.shape,)} do not fit {len(labels_T)} labels and an output matrix "
            f"of {(*weight_VD.shape,)}"
        )
    if weight_VD.requires_grad:
        raise ValueError("the output matrix gets no gradient here; freeze it (set_trainable)")
    smoothed, plain = _SmoothedNLL.apply(
        states_TD.to(scores_dtype),
        weight_VD.to(scores_dtype),
        labels_T,
        label_smoothing,
        chunk_tokens,
    )
    count = _mean_over_ranks(len(labels_T), states_TD.device)
    loss = smoothed / count
    return loss, {"nmt": loss.detach(), "nll": plain / count}


def enhancement_loss(
    states_TD: Tensor,
    labels_T: Tensor,
    source_BD: Tensor | None,
    target_BD: Tensor | None,
    weight_VD: Tensor,
    *,
    ctl_weight: float = 2.0,
    ctl_temperature: float = 0.1,
    ctl_scale: str = "paper",
    chunk_rows: int = 1024,
    **nmt_options: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """NMT, plus CTL with its weight where there are sentence vectors (step b).

        enhancement_loss(*engine(batch, contrast=True), model.output_weight)

    Args:
        states_TD, labels_T, weight_VD: as `nmt_loss` takes them.
        source_BD: sentence vectors, L2-normalised, fp32; None in step a.
        target_BD: the translations' vectors.
        ctl_weight: weight of CTL; 0 leaves it out.
        ctl_temperature: tau, fixed.
        ctl_scale: paper, the sum of both means; or released, the authors' code, which divides CTL
            by this rank's sentences as well: at their batches, CTL weighs some 30 times less there.
        chunk_rows: rows of CTL's similarity matrix that are in memory at a time.
        nmt_options: of `nmt_loss`.

    Returns:
        The loss and its parts: `nmt`, `nll`, and `ctl` where it is part of the loss.

    Raises:
        ValueError: `ctl_scale` is neither.
    """
    if ctl_scale not in ("paper", "released"):
        raise ValueError(f"ctl_scale must be paper or released, not {ctl_scale!r}")
    loss, parts = nmt_loss(states_TD, labels_T, weight_VD, **nmt_options)
    if source_BD is None or not ctl_weight:
        return loss, parts
    scale = source_BD.new_tensor(1 / ctl_temperature)
    ctl = info_nce(source_BD, target_BD, scale, chunk_rows=chunk_rows)
    weight = ctl_weight / len(source_BD) if ctl_scale == "released" else ctl_weight
    return loss + weight * ctl, {**parts, "ctl": ctl.detach()}


def sentence_vectors(states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """Means over the tokens that are not padding (B, D), L2-normalised in fp32."""
    weights_B1L = mask_BL[:, None].to(torch.float32)
    with torch.autocast(states_BLD.device.type, enabled=False):  # it would take the sum in bf16
        sums_BD = torch.bmm(weights_B1L, states_BLD.float())[:, 0]
    return F.normalize(sums_BD, dim=-1)  # of the sum: the count cancels


def encoder_step(
    model: Any, output_weight: Tensor, batch: dict[str, Any], settings: TrainEncoderSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of this process's sentences, and its parts; every process must call it.

    Args:
        model: the translation model, or the engine around it.
        output_weight: the model's output matrix.
        batch: of `TokenBatches`; its tensors are moved to the matrix's device.
        settings: the run's.
    """
    device = output_weight.device
    batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    output = model(
        batch,
        contrast=settings.step == "b",
        both_ways=settings.both_ways,
        ctl_states=settings.ctl_states,
    )
    return enhancement_loss(
        *output,
        output_weight,
        ctl_weight=settings.ctl_weight,
        ctl_temperature=settings.ctl_temperature,
        ctl_scale=settings.ctl_scale,
        chunk_rows=settings.chunk_rows,
        label_smoothing=settings.label_smoothing,
        chunk_tokens=settings.chunk_tokens,
        scores_dtype=torch.bfloat16 if settings.mixed_precision == "bf16" else torch.float32,
    )
