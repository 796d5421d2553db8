"""An XLM-R of any size with random weights, and masked language modelling on it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import XLMRobertaConfig, XLMRobertaModel
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLMHead


def encoder_config(
    vocabulary_size: int, *, width: int, num_layers: int, num_heads: int, max_length: int
) -> XLMRobertaConfig:
    """XLM-R's config at another size, without dropout: two epochs do not overfit."""
    return XLMRobertaConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        max_position_embeddings=max_length + 2,  # positions start behind the pad token's id
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )


def untrained_model(config: XLMRobertaConfig, seed: int) -> XLMRobertaModel:
    """Random weights, with larger embeddings than XLM-R's.

    At XLM-R's 0.02 so narrow a model stays for long on a plateau where every token is predicted
    by its frequency alone.
    """
    torch.manual_seed(seed)
    model = XLMRobertaModel(config, add_pooling_layer=False)
    for embedding in (model.embeddings.word_embeddings, model.embeddings.position_embeddings):
        nn.init.normal_(embedding.weight, std=0.1)
        with torch.no_grad():
            embedding.weight[config.pad_token_id].zero_()
    return model


class MaskedLanguageModel(nn.Module):
    """The encoder under XLM-R's own head, whose output embedding is the input's."""

    def __init__(self, encoder: XLMRobertaModel) -> None:
        """`encoder` is trained in place."""
        super().__init__()
        self.encoder = encoder
        self.head = XLMRobertaLMHead(encoder.config)
        self.head.decoder.weight = encoder.embeddings.word_embeddings.weight
        self.head.decoder.bias = self.head.bias

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the chosen tokens, and its parts: their `accuracy`. The other tokens are
        not scored, which saves most of the head.

        Args:
            input_ids, attention_mask: (B, L), masked.
            labels: (B, L), the chosen tokens, -100 elsewhere.
        """
        states_BLD = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        chosen_BL = labels != -100
        scores, right = self.head(states_BLD[chosen_BL]).float(), labels[chosen_BL]
        accuracy = (scores.detach().argmax(dim=1) == right).float().mean()
        return F.cross_entropy(scores, right), {"accuracy": accuracy}
