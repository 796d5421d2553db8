"""MuLan: an adapter on a frozen multilingual encoder, trained on English, used in any language.

Xing et al., "MuLan: Adapting Multilingual Diffusion Models for Hundreds of Languages with
Negligible Cost", arXiv 2412.01271. The encoder already understands many languages; the adapter maps
its states to the states that a frozen English diffusion model expects. It learns from pictures (the
diffusion loss), from the English encoder's states, or both. The encoder gives the other languages.

Shapes: B batch, L tokens, C encoder width, Q queries, D cross-attention width, P pooled width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mulan.memory import MemoryAdapter
from mulan.variants import AddEmbedding, AttentionPool, SeedAdapter, StatesPool

Adapted = tuple[Tensor, Tensor | None]  # states (B, Q, D), and a pooled vector (B, P) or None


class QueryAdapter(nn.Module):
    """Token MLP, then a Transformer of one encoder and one decoder layer over learned queries; some
    published files have two of each.

    For SD 1.x and 2.x. It has no padding mask and no position embeddings. At C = 4096, Q = 120 it
    has 20,371,968 parameters for D = 768, 34,764,800 for D = 1024, with the published files' names.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        num_queries: int,
        num_heads: int,
        depth: Sequence[int] = (1, 1),
    ):
        """C, D, Q, attention heads, and the layers of encoder and decoder."""
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(encoder_width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.queries = nn.Parameter(torch.randn(1, num_queries, width) * width**-0.5)
        layer = {"d_model": width, "nhead": num_heads, "dim_feedforward": 4 * width}
        layer |= {"dropout": 0.0, "batch_first": True, "norm_first": True}
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**layer),
            depth[0],
            nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**layer), depth[1], nn.LayerNorm(width)
        )
        self.transformer = nn.Transformer(
            width, num_heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )

    def forward(self, states_BLC: Tensor) -> Adapted:
        """Token states to cross-attention states (B, Q, D), without a pooled vector.

        This is what `nn.Transformer` computes with the queries as the decoder's input. The first
        decoder layer's self-attention sees only the queries: it is computed once for all rows.
        """
        memory_BLD = self.proj(states_BLC)
        for reader in self.transformer.encoder.layers:
            normed_BLD = reader.norm1(memory_BLD)
            memory_BLD = memory_BLD + _attend(reader.self_attn, normed_BLD, normed_BLD)
            memory_BLD = memory_BLD + _feed_forward(reader, reader.norm2(memory_BLD))
        memory_BLD = self.transformer.encoder.norm(memory_BLD)
        h_BQD = self.queries  # one row, until the memory is read
        for asker in self.transformer.decoder.layers:
            normed_BQD = asker.norm1(h_BQD)
            h_BQD = h_BQD + _attend(asker.self_attn, normed_BQD, normed_BQD)
            h_BQD = h_BQD + _attend(asker.multihead_attn, asker.norm2(h_BQD), memory_BLD)
            h_BQD = h_BQD + _feed_forward(asker, asker.norm3(h_BQD))
        return self.transformer.decoder.norm(h_BQD), None


def _attend(attention: nn.MultiheadAttention, asking: Tensor, memory: Tensor) -> Tensor:
    """`attention(asking, memory, memory)`; one row of `asking` serves all rows of `memory`."""
    width, rows = attention.embed_dim, len(memory)
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    queries = F.linear(asking, weight[:width], bias[:width])
    keys, values = F.linear(memory, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2).expand(rows, -1, -1, -1)
        for part in (queries, keys, values)
    )
    read = F.scaled_dot_product_attention(*heads)
    return attention.out_proj(read.transpose(1, 2).flatten(2))


def _feed_forward(layer: nn.Module, states: Tensor) -> Tensor:
    return layer.linear2(F.relu(layer.linear1(states)))


class CaptionProjection(nn.Module):
    """Linear, tanh-GELU, linear, with the names of diffusers' text projections.

    PixArt's adapter (4096 -> 1152 -> 1152: 6,048,000 parameters), and SDXL's pooled head (768 ->
    1280 -> 1280).
    """

    def __init__(self, in_width: int, width: int):
        """Widths of input and output."""
        super().__init__()
        self.linear_1 = nn.Linear(in_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """(..., in_width) to (..., width)."""
        return self.linear_2(F.gelu(self.linear_1(states), approximate="tanh"))


class PixArtAdapter(CaptionProjection):
    """Replaces the caption projection of the denoiser (PixArt, Sana)."""

    def forward(self, states_BLC: Tensor) -> Adapted:
        """Token states to cross-attention states (B, L, D), which keep the encoder's mask."""
        return super().forward(states_BLC), None


class PooledAdapter(nn.Module):
    """The form for bases that take a pooled vector: a query adapter for each part of their states
    (two for SDXL's two text encoders, one elsewhere), and a pooled head.

    At C = 4096, Q = 120, D = 1280 + 768 and a pooled vector of 768 from the encoder it has
    75,954,688 parameters. `pool` chooses the pooled head's input: the `mean` of all token states or
    the `first` of them (both of width C), an `attention` pool, or, as in the published files, the
    `encoder`'s own pooled vector, of width `pool_input_width`, or the adapter's `states`. With
    `zero_pooled`, the authors' default in use, the pooled vector is zeros.
    """

    def __init__(
        self,
        encoder_width: int,
        widths: Sequence[int],
        num_queries: int,
        num_heads: int,
        pooled_width: int,
        pool: str,
        pool_input_width: int,
        out_width: int | None = None,
        depth: Sequence[int] = (1, 1),
        zero_pooled: bool = False,
    ):
        """C, the parts of D in the adapters' order, Q, heads, P, and the pool; D where a linear
        layer takes the states of one adapter to it.
        """
        super().__init__()
        for number, width in enumerate(widths, start=1):
            adapter = QueryAdapter(encoder_width, width, num_queries, num_heads, depth)
            self.add_module(f"adapter{number}", adapter)
        self.out = nn.Linear(widths[0], out_width) if out_width else None
        self.pool, self.zeros = pool, pooled_width if zero_pooled else 0
        if pool == "states":
            self.pool_caption_projection = StatesPool(
                num_queries, out_width or sum(widths), pooled_width, num_heads
            )
        elif pool == "attention":
            self.pool_caption_projection = AttentionPool(encoder_width, pooled_width, num_heads)
        else:
            self.pool_caption_projection = CaptionProjection(pool_input_width, pooled_width)

    def forward(self, states_BLC: Tensor, pooled: Tensor | None = None) -> Adapted:
        """Token states to cross-attention states (B, Q, D) and the pooled vector (B, P).

        Args:
            states_BLC: token states of the encoder.
            pooled: the encoder's own pooled vector, if `pool` is `encoder`.

        Raises:
            ValueError: `pool` is `encoder` and that vector is missing.
        """
        adapters = (part for name, part in self.named_children() if name.startswith("adapter"))
        states = torch.cat([adapter(states_BLC)[0] for adapter in adapters], dim=-1)
        if self.out is not None:
            states = self.out(states)
        if self.zeros:
            return states, states.new_zeros(len(states), self.zeros)
        if self.pool == "states":
            pooled = states
        elif self.pool == "attention":
            pooled = states_BLC
        elif self.pool == "mean":  # over the padding too: the adapter has no mask
            pooled = states_BLC.mean(dim=1)
        elif self.pool == "first":
            pooled = states_BLC[:, 0]
        elif pooled is None:
            raise ValueError(
                "this adapter reads the encoder's own pooled vector: call it with states and pooled"
            )
        return states, self.pool_caption_projection(pooled)


def build_adapter(config: dict[str, Any]) -> nn.Module:
    """The adapter that a config describes.

    Args:
        config: `variant` (published | seed), `replaces_projection`, widths, and the form's own
            settings; `language` chooses a seed adapter's language.

    Raises:
        ValueError: the seed form does not support the base, or the language is unknown.
    """
    encoder_width, width = config["encoder_width"], config["width"]
    queries = {"num_queries": config["num_queries"], "num_heads": config["num_heads"]}
    queries["depth"] = config.get("depth", (1, 1))
    # adapters of earlier versions say it by their family alone
    replaces_projection = config.get("replaces_projection", config.get("family") == "pixart")
    query_width = config.get("query_width")
    if num_memory := config.get("num_memory"):
        if replaces_projection or config["add_embedding"] or config["variant"] == "seed":
            raise ValueError(
                "num_memory is for adapters of learned queries alone, without replaced layers of "
                "the base: use --num_memory 0"
            )
        adapter = build_adapter({**config, "num_memory": 0})
        return MemoryAdapter(adapter, num_memory + 1, encoder_width)
    if config["variant"] == "seed":
        if config["pooled_width"] or replaces_projection:
            raise ValueError("variant seed drives SD 1.x and 2.x alone: use variant published")
        languages = config["languages"]
        adapter = SeedAdapter(encoder_width, width, config["num_layers"], len(languages))
        language = config.get("language") or languages[0]
        if language not in languages:
            raise ValueError(f"this adapter has no {language!r}; it has {', '.join(languages)}")
        adapter.language = languages.index(language)
        return adapter
    if replaces_projection:
        return PixArtAdapter(encoder_width, width)
    if not config["pooled_width"]:
        if query_width:
            raise ValueError("query_width is for bases that take a pooled vector: leave it out")
        return QueryAdapter(encoder_width, width, **queries)
    adapter = PooledAdapter(
        encoder_width,
        config["split_widths"] or [query_width or width],
        **queries,
        pooled_width=config["pooled_width"],
        pool=config["pool"],
        pool_input_width=config["pool_input_width"],
        out_width=width if query_width else None,
        zero_pooled=config.get("pooled_policy") == "zeros",
    )
    if config["add_embedding"]:  # the UNet's embedding of pooled vector, sizes and crops
        adapter.add_embedding = AddEmbedding(*config["add_embedding"])
    return adapter


def image_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Image-centred alignment: the diffusion loss of the base under the adapter's states.

    Args:
        predicted: noise or velocity, (B, 4, h, w).
        target: the noise that was added, or the velocity.

    Returns:
        The mean squared error, in fp32.
    """
    return F.mse_loss(predicted.float(), target.float())


def language_loss(adapted: Adapted, english: Adapted, has_teacher_B: Tensor) -> Tensor:
    """Language-centred alignment: the squared error between the adapter's states and the English
    encoder's, position by position, plus that of the pooled vectors if there are any (each a mean).

    Args:
        adapted: the adapter's states (B, Q, D) and pooled (B, P) or None.
        english: those of the base's own encoder, (B, L, D) and (B, P) or None, for the same caption
            or its translation.
        has_teacher_B: whether a row has such a caption; other rows do not count.

    Raises:
        ValueError: Q differs from L, so that positions would not correspond.
    """
    if adapted[0].shape != english[0].shape:
        raise ValueError(
            f"the adapter gives {adapted[0].shape[1]} states and the English encoder "
            f"{english[0].shape[1]}: language alignment needs num_queries {english[0].shape[1]}"
        )
    weights_B = has_teacher_B.float() / has_teacher_B.sum().clamp(min=1)
    pairs = [(own, wanted) for own, wanted in zip(adapted, english, strict=True) if own is not None]
    errors = [(own.float() - wanted.float()).square().flatten(1).mean(1) for own, wanted in pairs]
    return (torch.stack(errors).sum(dim=0) * weights_B).sum()


def mulan_loss(
    image: Tensor | None, language: Tensor | None, language_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Image + w * language, or only the one that is not None."""
    terms = {"image": image, "language": language}
    parts = {name: term.detach() for name, term in terms.items() if term is not None}
    if image is None or language is None:
        return (language if image is None else image), parts
    return image + language_weight * language, parts
