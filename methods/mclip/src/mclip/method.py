"""mCLIP's second stage, triangle knowledge distillation (TriKD): two projectors between three
frozen encoders.

CLIP's picture and English text embeddings pass one linear map, the CLIP-projector; the token states
of a multilingual text encoder pass two Transformer layers, the X-projector. In the space where they
meet, a text is contrasted with its picture (ITC) and, where it is English, with its embedding by
CLIP's own text encoder (TTC).

Chen et al., mCLIP: Multilingual CLIP via Cross-lingual Transfer, ACL 2023 (2023.acl-long.728). The
first stage, on parallel text, is `stage1/`; the contrast itself is `contrastive.py`.
"""

import math
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mclip.contrastive import info_nce

# B captions, T their tokens one after another without padding, C width of CLIP's space, D width

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100)


class CLIPProjector(nn.Linear):
    """One map without bias, shared by pictures and English texts."""

    def __init__(self, clip_width: int, width: int):
        """Draws the weight as the authors do, Xavier-uniform."""
        super().__init__(clip_width, width, bias=False)
        nn.init.xavier_uniform_(self.weight)


class ProjectorLayer(nn.Module):
    """A Transformer encoder layer with the norms after its sums, on packed tokens."""

    def __init__(
        self, width: int, num_heads: int, ffn_width: int, dropout: float, attention_dropout: float
    ):
        """Makes the four maps and two norms of a layer."""
        super().__init__()
        if width % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a width of {width}")
        self.num_heads, self.attention_dropout = num_heads, attention_dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, ffn_width), nn.Linear(ffn_width, width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.query, self.key, self.value, self.out, self.up, self.down):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, states_TD: Tensor, lengths_B: list[int], asking: Tensor | None) -> Tensor:
        """States after the layer: of all tokens, or of those at `asking`, one per caption.

        Args:
            states_TD: tokens of captions in order of length.
            lengths_B: the captions' lengths, in that order.
            asking: positions (B,) whose states are computed; the others are only attended to.
        """
        asking_TD = states_TD if asking is None else states_TD[asking]
        attend = self._attend if asking is None else self._attend_once
        heard_TD = self.out(attend(self.query(asking_TD), states_TD, lengths_B))
        asking_TD = self.attention_norm(asking_TD + self.dropout(heard_TD))
        inner_TD = self.down(F.gelu(self.up(asking_TD)))
        return self.ffn_norm(asking_TD + self.dropout(inner_TD))

    def _attend(self, queries_TD: Tensor, states_TD: Tensor, lengths_B: list[int]) -> Tensor:
        """Attention inside each caption: those of one length are one dense batch, so that no pad is
        computed and no mask is needed.
        """
        counts, tokens = _groups(lengths_B)
        parts = (queries_TD, self.key(states_TD), self.value(states_TD))
        heard, chance = [], self.attention_dropout if self.training else 0.0
        # split and not slices: the gradient of a split is one concatenation
        for count, *group in zip(counts, *(part.split(tokens) for part in parts), strict=True):
            heads = (
                part.unflatten(0, (count, -1)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
                for part in group
            )
            read = F.scaled_dot_product_attention(*heads, dropout_p=chance)
            heard.append(read.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(heard)

    def _attend_once(self, queries_BD: Tensor, states_TD: Tensor, lengths_B: list[int]) -> Tensor:
        """The same for one query per caption, without keys and values of its tokens: the key map
        takes each head's query to the states, the value map takes their weighted sum from there.
        """
        heads = (self.num_heads, -1)
        maps = (self.key.weight, self.key.bias, self.value.weight, self.value.bias)
        key_HdD, key_Hd, value_HdD, value_Hd = (part.unflatten(0, heads) for part in maps)
        queries_BHd = queries_BD.unflatten(1, heads) * key_Hd.shape[1] ** -0.5
        asked_BHD = torch.einsum("bhd,hdw->bhw", queries_BHd, key_HdD)
        shift_BH1 = (queries_BHd * key_Hd).sum(dim=2, keepdim=True)
        counts, tokens = _groups(lengths_B)
        groups = (asked_BHD.split(counts), shift_BH1.split(counts), states_TD.split(tokens))
        heard, shares = [], []
        for asked_bHD, shift_bH1, states_tD in zip(*groups, strict=True):
            states_bLD = states_tD.unflatten(0, (len(asked_bHD), -1))
            scores_bHL = asked_bHD @ states_bLD.transpose(1, 2) + shift_bH1
            share_bHL = F.dropout(scores_bHL.softmax(-1), self.attention_dropout, self.training)
            heard.append(share_bHL @ states_bLD)
            shares.append(share_bHL.sum(dim=2, keepdim=True))
        values_BHd = torch.einsum("bhw,hdw->bhd", torch.cat(heard), value_HdD)
        return (values_BHd + torch.cat(shares) * value_Hd).flatten(1)


def _groups(lengths_B: list[int]) -> tuple[list[int], list[int]]:
    """The captions of each length, and their tokens in all; the lengths are in order."""
    counts = Counter(lengths_B)
    return list(counts.values()), [length * count for length, count in counts.items()]


class XProjector(nn.Module):
    """Transformer layers on the whole sequence of a multilingual encoder; a caption's vector is the
    output at its end token, `</s>`.

    The last layer computes only this one output per caption.
    """

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        ffn_width: int,
        dropout: float = 0.3,
        attention_dropout: float = 0.1,
    ):
        """Makes the layers, without positions, a further norm or a map at the end."""
        super().__init__()
        self.layers = nn.ModuleList(
            ProjectorLayer(width, num_heads, ffn_width, dropout, attention_dropout)
            for _ in range(num_layers)
        )

    def forward(self, states_TD: Tensor, lengths_B: Tensor) -> Tensor:
        """The captions' vectors (B, D).

        Args:
            states_TD: the encoder's token states of all captions, one caption after another, each
                from its start token to its end token, without padding.
            lengths_B: number of tokens of each caption.

        Raises:
            ValueError: the lengths do not add up to the tokens.
        """
        if int(lengths_B.sum()) != len(states_TD) or int(lengths_B.min()) < 1:
            raise ValueError(
                f"captions of {int(lengths_B.sum())} tokens in all do not fit {len(states_TD)}"
            )
        order = lengths_B.argsort(stable=True)
        sorted_B = lengths_B[order]
        starts = (lengths_B.cumsum(0) - lengths_B)[order]
        ends = sorted_B.cumsum(0)
        shifts = torch.repeat_interleave(starts - (ends - sorted_B), sorted_B)
        places = torch.arange(len(states_TD), device=lengths_B.device) + shifts
        states_TD = states_TD[places.to(states_TD.device)]
        lengths = sorted_B.tolist()
        for layer in self.layers[:-1]:
            states_TD = layer(states_TD, lengths, None)
        vectors_BD = self.layers[-1](states_TD, lengths, ends - 1)
        return vectors_BD[order.argsort()]


class TriKD(nn.Module):
    """The trained part: both projectors and the temperature."""

    def __init__(self, config: dict[str, Any]):
        """Makes the parts from `clip_width`, `width` and the X-projector's shape."""
        super().__init__()
        width = config["width"]
        self.clip_projector = CLIPProjector(config["clip_width"], width)
        self.x_projector = XProjector(
            width,
            config["num_layers"],
            config["num_heads"],
            config["ffn_width"],
            config["dropout"],
            config["attention_dropout"],
        )
        self.logit_scale = nn.Parameter(torch.full((1,), INITIAL_LOGIT_SCALE))

    def forward(
        self,
        image_embeds_BC: Tensor,
        text_embeds_BC: Tensor,
        states_TD: Tensor,
        lengths_B: Tensor,
        embed_batch_size: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures, English texts and captions in the shared space, each (B, D), L2-normalised in
        fp32, and the scale that their cosines are multiplied by, of shape (1,).

        Args:
            image_embeds_BC: CLIP's embeddings of the pictures.
            text_embeds_BC: CLIP's embeddings of the English captions.
            states_TD, lengths_B: as `XProjector` takes them.
            embed_batch_size: captions whose activations are in memory at a time; the backward pass
                computes them again. 0 keeps all.
        """
        images_BD, texts_BD = self.clip_projector(
            torch.stack((image_embeds_BC, text_embeds_BC))
        ).unbind()
        if embed_batch_size:
            tokens = [int(part.sum()) for part in lengths_B.split(embed_batch_size)]
            parts = zip(states_TD.split(tokens), lengths_B.split(embed_batch_size), strict=True)
            captions_BD = torch.cat(
                [checkpoint(self.x_projector, *part, use_reentrant=False) for part in parts]
            )
        else:
            captions_BD = self.x_projector(states_TD, lengths_B)
        shared = (F.normalize(h.float(), dim=-1) for h in (images_BD, texts_BD, captions_BD))
        return *shared, self.logit_scale.float().exp()


def trikd_loss(
    captions_BD: Tensor,
    images_BD: Tensor,
    texts_BD: Tensor,
    is_english_B: Tensor,
    scale: Tensor,
    *,
    itc_weight: float = 1.0,
    ttc_weight: float = 0.1,
    ttc_scale: str = "paper",
    chunk_rows: int = 1024,
    pictures_B: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L = itc_weight ITC(h_X, h_I) + ttc_weight TTC(h_X, h_T), both symmetric InfoNCE over all
    ranks.

    h_T is the English teacher's text where the caption is English and the picture elsewhere, as in
    the authors' code. That code multiplies the cosines of TTC by ln(1/0.07) = 2.659 and not by its
    exponential; `ttc_scale="released"` does the same, `"paper"` takes the learned temperature of
    ITC.

    Args:
        captions_BD, images_BD, texts_BD, scale: outputs of `TriKD`.
        is_english_B: whether a row's caption is English.
        itc_weight, ttc_weight: 0 leaves a term out (the paper's ablations).
        ttc_scale: paper or released.
        chunk_rows: rows of the similarity matrices that are in memory at a time.
        pictures_B: which picture a row shows, for the loss of the authors' fine-tuning on COCO:
            rows of one picture are positives of each other. Its code multiplies the cosines of TTC
            by ln(1/0.01) = 4.605. None where each row is its own.

    Raises:
        ValueError: both weights are 0, or `ttc_scale` is neither.
    """
    if ttc_scale not in ("paper", "released"):
        raise ValueError(f"ttc_scale must be paper or released, not {ttc_scale!r}")
    if not itc_weight and not ttc_weight:
        raise ValueError("itc_weight and ttc_weight are both 0: nothing would be learnt")
    loss, parts = captions_BD.new_zeros(()), {}
    if itc_weight:
        itc = info_nce(captions_BD, images_BD, scale, chunk_rows=chunk_rows, ids_b=pictures_B)
        loss, parts["itc"] = loss + itc_weight * itc, itc.detach()
    if ttc_weight:
        teacher_BD = torch.where(is_english_B[:, None], texts_BD, images_BD)
        released = ttc_scale == "released"
        fixed = INITIAL_LOGIT_SCALE if pictures_B is None else MAX_LOGIT_SCALE
        ttc = info_nce(
            captions_BD,
            teacher_BD,
            torch.full_like(scale, fixed) if released else scale,
            chunk_rows=chunk_rows,
            ids_b=pictures_B,
        )
        loss, parts["ttc"] = loss + ttc_weight * ttc, ttc.detach()
    return loss, parts
