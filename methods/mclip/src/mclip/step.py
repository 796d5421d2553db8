"""One batch of TriKD to its loss, the samples to look at when that is not finite, and the limit of
the temperature.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mclip.data import TriKDData
from mclip.method import MAX_LOGIT_SCALE, trikd_loss
from mclip.settings import TrainSettings


def trikd_step(
    trikd: Any, batch: dict[str, Any], settings: TrainSettings, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """This rank's part of the loss of a batch, and its parts; every process must call it.

    Args:
        trikd: the engine around `TriKD`, or the module itself.
        batch: of `TriKDData.batches`.
        settings: the run's.
        device: where the projectors are.
    """
    images, texts, states = (
        batch[name].to(device).float() for name in ("image_embeds", "text_embeds", "states")
    )
    lengths = batch["lengths"].to(device)
    pictures = picture_ids(images) if settings.positives == "picture" else None
    images, texts, captions, scale = trikd(
        images, texts, states, lengths, settings.embed_batch_size
    )
    return trikd_loss(
        captions,
        images,
        texts,
        batch["is_english"].to(device),
        scale,
        itc_weight=settings.itc_weight,
        ttc_weight=settings.ttc_weight,
        ttc_scale=settings.ttc_scale,
        chunk_rows=settings.chunk_rows,
        pictures_B=pictures,
    )


def picture_ids(image_embeds_BC: Tensor) -> Tensor:
    """A number for each picture (B,), the same on all ranks: a hash of CLIP's embedding, which is
    the same for the same picture.
    """
    bits = image_embeds_BC.contiguous().view(torch.int32).long()
    factors = torch.arange(1, bits.shape[1] + 1, device=bits.device) * 0x9E3779B97F4A7C1
    return (bits * factors).sum(dim=1)  # both wrap around


def suspects(data: TriKDData, batch: dict[str, Any]) -> list[str]:
    """The first samples of all ranks whose own arrays are not finite; if there are none, the first
    samples of this rank. Every process must call it, and does: in a contrast one bad row spoils the
    loss of all ranks.
    """
    tokens = batch["states"].isfinite().all(dim=1).float()
    captions = torch.segment_reduce(tokens, "min", lengths=batch["lengths"])
    is_finite = batch["image_embeds"].isfinite().all(dim=1) & (captions > 0)
    keys = data.keys(batch)
    found = [key for key, good in zip(keys, is_finite.tolist(), strict=True) if not good]
    lists = [found] * data.ranks.world_size
    dist.all_gather_object(lists, found)
    return [key for part in lists for key in part][:8] or keys[:8]


def limit_scale(engine: Any) -> None:
    """Holds the learned inverse temperature at 100, as CLIP does; ZeRO's own copy too."""
    from deepspeed.utils import safe_set_full_fp32_param

    logit_scale = engine.module.logit_scale
    if logit_scale.item() > MAX_LOGIT_SCALE:
        logit_scale.data.fill_(MAX_LOGIT_SCALE)
        if engine.zero_optimization_stage() > 0:
            safe_set_full_fp32_param(logit_scale, logit_scale.data)
