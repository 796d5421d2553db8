"""Forms and parts besides the published adapters: the seed paper's form with weights for each
language, attention pools, and a replacement for SDXL's added embedding.

Shapes: B batch, L tokens, C encoder width, D cross-attention width, P pooled width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SeedAdapter(nn.Module):
    """The seed paper's form (section 3.4): an MLP of 2 or 3 layers with weights for each language,
    chosen by index.

    The weights of all languages are stacked at every step, so that each process runs the same graph
    no matter which languages its batch holds.
    """

    def __init__(self, encoder_width: int, width: int, num_layers: int, num_languages: int):
        """C, D, linear layers, and languages."""
        super().__init__()
        widths = [encoder_width, *[width] * num_layers]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.languages = nn.ModuleList(
            nn.ModuleList(nn.Linear(*pair) for pair in pairs) for _ in range(num_languages)
        )
        self.language = 0

    def forward(self, states_BLC: Tensor, languages_B: Tensor | None = None) -> tuple[Tensor, None]:
        """Token states to cross-attention states (B, L, D) by each row's language.

        Args:
            states_BLC: token states of the encoder.
            languages_B: index of each row's language; `self.language` for all rows if None.
        """
        h = states_BLC
        for number, layers in enumerate(zip(*self.languages, strict=True)):
            if number:
                h = F.gelu(h)
            if languages_B is None:
                h = layers[self.language](h)
                continue
            weights = torch.stack([layer.weight for layer in layers])[languages_B]
            biases = torch.stack([layer.bias for layer in layers])[languages_B]
            h = torch.baddbmm(biases.unsqueeze(1), h, weights.transpose(1, 2))
        return h, None


class AttentionPool(nn.Module):
    """One learned query that reads all token states: a pooled vector for encoders without one."""

    def __init__(self, encoder_width: int, width: int, num_heads: int):
        """C, P and attention heads."""
        super().__init__()
        self.linear_1 = nn.Linear(encoder_width, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)

    def forward(self, states_BLC: Tensor) -> Tensor:
        """Token states to (B, P)."""
        keys = self.linear_1(states_BLC)
        query = self.query.expand(len(keys), -1, -1)
        return self.attention(query, keys, keys, need_weights=False)[0][:, 0]


class StatesPool(nn.Module):
    """The attention pool of some published SDXL files: the mean of the adapter's states reads them
    and itself. Its parameters have the names of these files; 120 states of 2048 give P = 1280.
    """

    def __init__(self, num_states: int, width: int, pooled_width: int, num_heads: int):
        """Q, D, P and attention heads."""
        super().__init__()
        places = torch.randn(num_states + 1, width) * width**-0.5
        self.positional_embedding = nn.Parameter(places)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, pooled_width)
        self.num_heads = num_heads

    def forward(self, states_BQD: Tensor) -> Tensor:
        """States to (B, P)."""
        mean_B1D = states_BQD.mean(dim=1, keepdim=True)
        h_BKD = torch.cat([mean_B1D, states_BQD], dim=1) + self.positional_embedding
        heads = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q_proj(h_BKD[:, :1]), self.k_proj(h_BKD), self.v_proj(h_BKD))
        )
        read = F.scaled_dot_product_attention(*heads)
        return self.c_proj(read.transpose(1, 2).flatten(2))[:, 0]


class AddEmbedding(nn.Module):
    """SDXL's embedding of pooled vector, sizes and crops, which some adapters replace.

    It replaces the UNet's own embedding in training and after `attach`.
    """

    def __init__(self, in_width: int, width: int):
        """Widths of input (2816 for SDXL) and output (1280)."""
        super().__init__()
        self.linear_1 = nn.Linear(in_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, sample: Tensor) -> Tensor:
        """(B, in_width) to (B, width)."""
        return self.linear_2(F.silu(self.linear_1(sample)))
