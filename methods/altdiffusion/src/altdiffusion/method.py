"""AltDiffusion: a multilingual text encoder in place of CLIP's, and a UNet that learns to read it.

Chen et al., "AltCLIP: Altering the Language Encoder in CLIP for Extended Language Capabilities",
arXiv 2211.06679; Ye et al., "AltDiffusion: A Multilingual Text-to-Image Diffusion Model", arXiv
2308.09991. Three steps:

1. Teacher learning: a student (XLM-R, LayerNorm, Linear) reads a sentence in any language, and its
   first token's projection learns the output of CLIP's text encoder for the English sentence.
2. Concept alignment: the student replaces CLIP's text encoder, and the keys and values of the
   UNet's cross-attention learn to read its tokens, by the diffusion loss.
3. Quality improvement: the whole UNet trains, then once more with a tenth of the captions empty.

Shapes: B batch of this rank, P width of the teacher's pooled state, J width of the joint space.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

Loss = tuple[Tensor, dict[str, Tensor]]

CAPTION_DROPOUT = {
    "concept_alignment": 0.0,
    "quality_improvement": 0.0,
    "guidance_tuning": 0.1,
}
"""The stages of the UNet, in order, and the share of captions that each stage replaces by the
empty one.
"""


def what_trains(stage: str, all_attn2: bool = False) -> Callable[[str], bool]:
    """Returns a test of whether a UNet parameter trains in a stage, by its name in diffusers.

    Concept alignment trains keys and values of cross-attention: 19,169,280 parameters of SD 1.x,
    25,559,040 of SD 2.x. The authors' code trains all of cross-attention, by a condition that is
    always true: 43,962,560 and 50,352,320.

    Args:
        stage: one of `CAPTION_DROPOUT`.
        all_attn2: concept alignment trains all of cross-attention, as in the authors' code.

    Raises:
        ValueError: no stage has this name.
    """
    if stage not in CAPTION_DROPOUT:
        raise ValueError(f"no stage {stage!r}; there are {', '.join(CAPTION_DROPOUT)}")
    if stage != "concept_alignment":
        return lambda name: True
    parts = (".attn2.",) if all_attn2 else (".attn2.to_k.", ".attn2.to_v.")
    return lambda name: any(part in name for part in parts)


def teacher_learning_loss(student_BP: Tensor, teacher_BP: Tensor) -> Loss:
    """The mean squared error between the student's and the teacher's sentence vector (AltCLIP,
    section 3.1), in fp32.

    L = mean_{b,p} (transformation(pre_LN(h))_{b,first token,p} - t_{b,p})^2

    Args:
        student_BP: the student's projection at the first token, for a sentence in any language.
        teacher_BP: CLIP's state at the end of the English sentence, before its text projection.

    Raises:
        ValueError: the widths differ.
    """
    if student_BP.shape != teacher_BP.shape:
        raise ValueError(
            f"the student's vectors are {tuple(student_BP.shape)}, the teacher's "
            f"{tuple(teacher_BP.shape)}: build the student with the teacher's width"
        )
    loss = (student_BP.float() - teacher_BP.float()).square().mean()
    return loss, {"distance": loss.detach()}


class _GatherRows(torch.autograd.Function):
    """Gathers the rows of all ranks, (b, J) to (B, J); a row receives the gradients of all ranks'
    losses.
    """

    @staticmethod
    def forward(ctx: Any, rows_bJ: Tensor) -> Tensor:
        """Gathers in the order of the ranks."""
        ctx.num_rows = len(rows_bJ)
        parts = [torch.empty_like(rows_bJ) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows_bJ.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_BJ: Tensor) -> Tensor:
        """Sums over the ranks and returns this rank's rows."""
        total_BJ = grad_BJ.contiguous().clone()
        dist.all_reduce(total_BJ)
        start = dist.get_rank() * ctx.num_rows
        return total_BJ[start : start + ctx.num_rows]


def _gathered(rows_bJ: Tensor) -> Tensor:
    is_alone = not dist.is_initialized() or dist.get_world_size() == 1
    return rows_bJ if is_alone else _GatherRows.apply(rows_bJ)


def contrastive_loss(text_bJ: Tensor, image_bJ: Tensor, scale: Tensor | float) -> Loss:
    """The symmetric InfoNCE of captions and pictures over all ranks, with the picture side frozen
    (AltCLIP, section 3.2).

    Its gradient, averaged over the ranks as data-parallel engines do, is that of the global batch.
    The authors' code gathers without gradients, which drops those of other ranks' losses.

    Args:
        text_bJ: joint embeddings of this rank's captions, of any norm.
        image_bJ: joint embeddings of their pictures.
        scale: CLIP's exp(logit_scale), which multiplies the cosines.
    """
    text_bJ, image_bJ = (F.normalize(rows.float(), dim=1) for rows in (text_bJ, image_bJ))
    text_BJ, image_BJ = _gathered(text_bJ), _gathered(image_bJ)
    first = dist.get_rank() * len(text_bJ) if dist.is_initialized() else 0
    own = torch.arange(first, first + len(text_bJ), device=text_bJ.device)
    to_image = F.cross_entropy(scale * text_bJ @ image_BJ.T, own)
    to_text = F.cross_entropy(scale * image_bJ @ text_BJ.T, own)
    parts = {"text_to_image": to_image.detach(), "image_to_text": to_text.detach()}
    return (to_image + to_text) / 2, parts


def signal_to_noise(alphas_cumprod: Tensor, timesteps_B: Tensor) -> Tensor:
    """alpha_bar / (1 - alpha_bar) of each row's timestep: (B,), fp32."""
    alphas_B = alphas_cumprod.to(timesteps_B.device)[timesteps_B].float()
    return alphas_B / (1 - alphas_B)


def min_snr_weights(snr_B: Tensor, gamma: float, is_velocity: bool) -> Tensor:
    """Min-SNR weights of each row's loss (Hang et al., arXiv 2303.09556, equation 8): (B,).

    min(SNR, gamma) / SNR if the base predicts noise, min(SNR, gamma) / (SNR + 1) if it predicts
    velocity.
    """
    return snr_B.clamp(max=gamma) / (snr_B + 1 if is_velocity else snr_B)


def _mean_over(errors_B: Tensor, rows_B: Tensor) -> Tensor:
    return (errors_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def diffusion_loss(
    predicted: Tensor, target: Tensor, native_B: Tensor, weights_B: Tensor | None = None
) -> Loss:
    """The diffusion loss of every stage of the UNet (AltDiffusion, equations 2 and 3): the squared
    error of the prediction, averaged over the batch, in fp32.

    Parallel rows and native rows, which can teach concepts that no English caption has, count the
    same; `parts` reports them separately, without weights.

    Args:
        predicted: the UNet's prediction, (B, 4, h, w).
        target: the noise, or the velocity if the base predicts it.
        native_B: whether a row's caption has no translation.
        weights_B: weights from `min_snr_weights`; 1 for every row if None.
    """
    errors_B = (predicted.float() - target.float()).square().flatten(1).mean(dim=1)
    loss = (errors_B if weights_B is None else weights_B * errors_B).mean()
    native = native_B.float()
    parts = {"parallel": _mean_over(errors_B, 1 - native), "native": _mean_over(errors_B, native)}
    return loss, {name: part.detach() for name, part in parts.items()}
