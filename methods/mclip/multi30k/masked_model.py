"""An XLM-R of any size with random weights, and masked language modelling on it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLMHead

NUM_SPECIAL = 4  # <s>, <pad>, </s>, <unk>: no random token is one of them


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


def mask_tokens(
    ids_BL: Tensor,
    *,
    special_ids: list[int],
    mask_id: int,
    masked_share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """BERT's masking: of the chosen tokens 80 % are masked, 10 % random, 10 % kept.

    Args:
        ids_BL: token ids.
        special_ids: never chosen.
        mask_id: the id of `<mask>`, the last of the vocabulary.
        masked_share: the probability that a token is chosen.
        generator: draws everything.

    Returns:
        The ids to read (B, L), and which were chosen (B, L).
    """
    special_BL = torch.isin(ids_BL, torch.tensor(special_ids))
    chosen_BL = (torch.rand(ids_BL.shape, generator=generator) < masked_share) & ~special_BL
    kind_BL = torch.rand(ids_BL.shape, generator=generator)
    drawn_BL = torch.randint(NUM_SPECIAL, mask_id, ids_BL.shape, generator=generator)
    masked_BL = ids_BL.masked_fill(chosen_BL & (kind_BL < 0.8), mask_id)
    return torch.where(chosen_BL & (kind_BL >= 0.9), drawn_BL, masked_BL), chosen_BL


def masked_batch(
    sentences: list[list[int]],
    tokenizer: XLMRobertaTokenizer,
    masked_share: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Pads sentences to the longest and masks some tokens.

    Returns:
        `input_ids`, `attention_mask` and `chosen`, all (B, L), and `labels` of the chosen tokens.
    """
    rows = [torch.tensor(ids) for ids in sentences]
    ids_BL = torch.nn.utils.rnn.pad_sequence(
        rows, batch_first=True, padding_value=tokenizer.pad_token_id
    )
    corrupted_BL, chosen_BL = mask_tokens(
        ids_BL,
        special_ids=[tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id],
        mask_id=tokenizer.mask_token_id,
        masked_share=masked_share,
        generator=generator,
    )
    return {
        "input_ids": corrupted_BL,
        "attention_mask": (ids_BL != tokenizer.pad_token_id).long(),
        "chosen": chosen_BL,
        "labels": ids_BL[chosen_BL],
    }


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
        self, input_ids: Tensor, attention_mask: Tensor, chosen: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the chosen tokens; the others are not scored, which saves most of the
        head.

        Args:
            input_ids: (B, L), masked.
            attention_mask: (B, L).
            chosen: (B, L), bool.
            labels: what stood at the chosen places, as `chosen` orders them.

        Returns:
            The loss and its parts: `accuracy` of the chosen tokens.
        """
        states_BLD = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        scores = self.head(states_BLD[chosen]).float()
        accuracy = (scores.detach().argmax(dim=1) == labels).float().mean()
        return F.cross_entropy(scores, labels), {"accuracy": accuracy}
