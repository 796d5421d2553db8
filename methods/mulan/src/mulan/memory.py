"""A support memory: prompts of any language are read as English sentences that they resemble.

DeCap (Li et al., ICLR 2023, arXiv 2303.03032) decodes pictures by a decoder that has seen only
texts: it projects each picture's vector onto vectors of texts. Here a prompt's sentence state is
projected onto English ones, so that the adapter never meets a state that is far from those it was
trained on. It cannot say more than its sentences do: it is for names and set phrases, not for
scenes. Unlike the authors' code it takes the memory's mean from all states before it compares them,
since those of such encoders lie close together, and leaves the mixtures' lengths as they are.

Shapes: B batch, L tokens, C encoder width, M sentences.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 100.0  # of the softmax over cosines, that of the authors' code


class MemoryAdapter(nn.Module):
    """An adapter that reads one state: the prompt's sentence state, projected onto a memory."""

    def __init__(self, adapter: nn.Module, num_sentences: int, encoder_width: int):
        """The adapter around which it stands, M and C; `data.support_memory` gives the memory."""
        super().__init__()
        self.adapter = adapter
        self.register_buffer("memory", torch.zeros(num_sentences, encoder_width))

    def forward(self, states_BLC: Tensor) -> Any:
        """Token states to what the adapter gives."""
        return self.adapter(project(sentence_states(states_BLC), self.memory)[:, None])


def sentence_states(states_BLC: Tensor) -> Tensor:
    """Means (B, C) of the token states, weighted by their distances from the last one: positions of
    padding all have the same state, so that they weigh nothing and no mask is needed.
    """
    weights_BL1 = (states_BLC - states_BLC[:, -1:]).norm(dim=-1, keepdim=True)
    return (weights_BL1 * states_BLC).sum(dim=1) / weights_BL1.sum(dim=1).clamp(min=1e-6)


def project(sentences_BC: Tensor, memory_MC: Tensor) -> Tensor:
    """The memory's mean (B, C), weighted by a softmax over centred cosines to each row's state."""
    center_C = memory_MC.mean(dim=0)
    keys_MC = F.normalize(memory_MC - center_C, dim=-1)
    cosines_BM = F.normalize(sentences_BC - center_C, dim=-1) @ keys_MC.T
    return (SHARPNESS * cosines_BM).softmax(dim=-1) @ memory_MC
