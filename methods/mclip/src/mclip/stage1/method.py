"""Stage 1's model: XLM-R, a linear map for each target language, a decoder.

NMT teaches XLM-R through the decoder's cross-attention; CTL teaches the mean of its states. The
decoder reads and predicts tokens by XLM-R's own word embedding, frozen, so that its parameters are
its layers alone. Afterwards stage 2 takes XLM-R, and the whole model is the translator of the
translate-test baseline. The losses are in `step.py`.

Source: mCLIP (ACL 2023), the enhancement of its multilingual text encoder.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import M2M100Config, XLMRobertaModel
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Decoder

from mclip.stage1.step import sentence_vectors

# B sentences, L source tokens, M target tokens, T target tokens without padding, D width,
# N tokens that the decoder predicts


class TranslationOutput(NamedTuple):
    """What `enhancement_loss` takes of a batch.

    Attributes:
        states_TD: the decoder's states where a token is predicted, without padding.
        labels_T: the tokens to predict, as rows of the output matrix.
        source_BD: the sentences' vectors, L2-normalised, fp32; None if they were not asked for.
        target_BD: the translations' vectors.
    """

    states_TD: Tensor
    labels_T: Tensor
    source_BD: Tensor | None
    target_BD: Tensor | None


class LanguageMaps(nn.Module):
    """One linear map of the encoder's states for each target language.

    All are one parameter, so that every step's graph has the same parameters, whatever its
    language. They start as the identity: a decoder with random weights then learns to read XLM-R's
    states for all languages at once. Random maps would hide these states N times over.
    """

    def __init__(self, num_languages: int, width: int):
        """Makes N maps of width D."""
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width).repeat(num_languages, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_languages, width))

    def forward(self, states_BLD: Tensor, index: int) -> Tensor:
        """States for the decoder of one language (B, L, D)."""
        return F.linear(states_BLD, self.weight[index], self.bias[index])


def decoder_config(encoder: Any, config: dict[str, Any]) -> M2M100Config:
    """The decoder's shape as transformers reads it: pre-LN, sinusoidal positions, GELU, embeddings
    times sqrt(D).

    Args:
        encoder: XLM-R's config.
        config: `num_decoder_layers`, `decoder_ffn_width`, `num_decoder_heads`, `dropout`.
    """
    return M2M100Config(
        vocab_size=encoder.vocab_size,
        d_model=encoder.hidden_size,
        max_position_embeddings=encoder.max_position_embeddings,
        encoder_layers=0,
        decoder_layers=config["num_decoder_layers"],
        decoder_ffn_dim=config["decoder_ffn_width"],
        decoder_attention_heads=config["num_decoder_heads"],
        decoder_layerdrop=0.0,
        dropout=config["dropout"],
        attention_dropout=0.0,  # as fairseq's default; torch's fast attention has none on CPU
        activation_function="gelu",
        decoder_start_token_id=encoder.bos_token_id,
        bos_token_id=encoder.bos_token_id,
        eos_token_id=encoder.eos_token_id,
        pad_token_id=encoder.pad_token_id,
    )


def _new_decoder(config: M2M100Config) -> M2M100Decoder:
    """A decoder without an embedding of its own. Its linear maps are Xavier-uniform as in Vaswani
    et al., since a deviation of 0.02 leaves small widths on a plateau.
    """
    unused = {"vocab_size": config.pad_token_id + 1, "eos_token_id": None}
    small = M2M100Config.from_dict({**config.to_dict(), **unused})
    decoder = M2M100Decoder(small)
    decoder.embed_tokens = None
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return decoder


class TranslationModel(nn.Module):
    """XLM-R, the language maps and the decoder.

    Attributes:
        config: the `languages` to translate into, the decoder's shape, `text_encoder`.
        encoder: XLM-R.
        output_ids: the tokens (N) that the decoder predicts, ascending; None for all.
    """

    output_ids: Tensor | None

    def __init__(self, encoder: XLMRobertaModel, config: dict[str, Any]):
        """Puts new maps and a new decoder on an encoder, drawn by torch's global generator."""
        super().__init__()
        self.register_buffer("output_ids", None, persistent=False)  # found anew by each run
        self.config = config
        self.encoder = encoder
        self.language_maps = LanguageMaps(len(config["languages"]), encoder.config.hidden_size)
        self.decoder = _new_decoder(decoder_config(encoder.config, config))
        self.is_encoder_frozen = True

    @property
    def embedding_weight(self) -> Tensor:
        """XLM-R's word embedding (V, D): the decoder's input matrix."""
        return self.encoder.embeddings.word_embeddings.weight

    @property
    def output_weight(self) -> Tensor:
        """The rows of the word embedding that are the decoder's output matrix (N, D)."""
        weight = self.embedding_weight
        return weight if self.output_ids is None else weight[self.output_ids]

    def limit_output(self, ids: Tensor | None) -> None:
        """Lets the decoder predict some tokens alone; None for all.

        The tokens up to the last mark (`<s>`, padding, `</s>`) are among them in any case, so that
        marks have the same number in the output matrix as in the vocabulary.

        Raises:
            ValueError: the encoder has no such token.
        """
        if ids is not None:
            marks = self.encoder.config
            last = max(marks.bos_token_id, marks.eos_token_id, marks.pad_token_id)
            ids = torch.cat((torch.arange(last + 1), ids.to("cpu", torch.long))).unique()
            if ids[0] < 0 or ids[-1] >= len(self.embedding_weight):
                raise ValueError(
                    f"the tokens go from {ids[0]} to {ids[-1]}; the encoder has "
                    f"{len(self.embedding_weight)}"
                )
            ids = ids.to(self.embedding_weight.device)
        self.output_ids = ids

    @property
    def pad(self) -> int:
        """The id of padding."""
        return self.encoder.config.pad_token_id

    def train(self, mode: bool = True) -> "TranslationModel":
        """Sets the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.is_encoder_frozen:
            self.encoder.eval()
        return self

    def language_index(self, language: str) -> int:
        """The index of a target language's map.

        Raises:
            ValueError: the model does not have the language; its languages are named.
        """
        languages = self.config["languages"]
        if language not in languages:
            raise ValueError(
                f"this model does not translate into {language!r}, but into {', '.join(languages)}"
            )
        return languages.index(language)

    def encode(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """XLM-R's states (B, L, D) of sentences padded on the right."""
        return self.encoder(ids_BL, attention_mask=mask_BL).last_hidden_state

    def decode(
        self, states_BLD: Tensor, mask_BL: Tensor, input_ids_BM: Tensor, target_language: str
    ) -> Tensor:
        """The decoder's states (B, M, D), each of which predicts the token after it.

        The target needs no mask: attention looks back only, and padding comes last.

        Args:
            states_BLD: of the source sentences, from `encode`.
            mask_BL: 1 for tokens, 0 for padding.
            input_ids_BM: target tokens from the start token on, without the last.
            target_language: a BCP-47 code.
        """
        embeds_BMD = F.embedding(input_ids_BM, self.embedding_weight)
        return self.decoder(
            inputs_embeds=embeds_BMD * math.sqrt(embeds_BMD.shape[-1]),
            encoder_hidden_states=self.language_maps(
                states_BLD, self.language_index(target_language)
            ),
            encoder_attention_mask=mask_BL,
            use_cache=False,
        ).last_hidden_state

    def forward(
        self,
        batch: dict[str, Any],
        *,
        contrast: bool = False,
        both_ways: bool = False,
        ctl_states: str = "encoder",
    ) -> TranslationOutput:
        """States, labels and vectors of a batch for `enhancement_loss`.

        Args:
            batch: `source_ids` (B, L), `source_mask`, `target_ids` (B, M), `target_mask`, each
                sentence from `<s>` to `</s>`, `source_language` and `target_language`.
            contrast: whether to return sentence vectors for CTL; the targets are encoded too.
            both_ways: whether to translate the targets back as well. With `contrast`, which
                encodes both anyway, this costs a pass of the decoder alone.
            ctl_states: states of the source whose mean is its vector: XLM-R's (`encoder`) or those
                that the decoder reads (`mapped`); those of the target are XLM-R's.
        """
        source_ids, source_mask = batch["source_ids"], batch["source_mask"]
        target_ids, target_mask = batch["target_ids"], batch["target_mask"]
        source_BLD = self.encode(source_ids, source_mask)
        predicted = [self._predict(source_BLD, source_mask, target_ids, batch["target_language"])]
        target_BMD = None
        if contrast or both_ways:
            target_BMD = self.encode(target_ids, target_mask)
        if both_ways:
            predicted.append(
                self._predict(target_BMD, target_mask, source_ids, batch["source_language"])
            )
        states, labels = (torch.cat(parts) for parts in zip(*predicted, strict=True))
        if not contrast:
            return TranslationOutput(states, labels, None, None)
        if ctl_states == "mapped":
            index = self.language_index(batch["target_language"])
            source_BLD = self.language_maps(source_BLD, index)
        return TranslationOutput(
            states,
            labels,
            sentence_vectors(source_BLD, source_mask),
            sentence_vectors(target_BMD, target_mask),
        )

    def _predict(
        self, states_BLD: Tensor, mask_BL: Tensor, ids_BM: Tensor, language: str
    ) -> tuple[Tensor, Tensor]:
        """The decoder's states before each token of `ids_BM` but the first, and those tokens' rows
        in the output matrix; tokens that have none are left out.
        """
        decoded_BMD = self.decode(states_BLD, mask_BL, ids_BM[:, :-1], language)
        labels_BM = ids_BM[:, 1:]
        is_token_BM = labels_BM != self.pad
        if (known_N := self.output_ids) is not None:
            rows_BM = torch.searchsorted(known_N, labels_BM.contiguous())
            rows_BM = rows_BM.clamp(max=len(known_N) - 1)
            is_token_BM &= known_N[rows_BM] == labels_BM
            labels_BM = rows_BM
        return decoded_BMD[is_token_BM].float(), labels_BM[is_token_BM]


def set_trainable(model: TranslationModel, step: str) -> None:
    """Switches gradients on for the parts that a step trains, and off for the rest.

    Args:
        model: changed in place, and set to training mode.
        step: a (maps and decoder) or b (XLM-R's layers too). XLM-R's embeddings, their LayerNorm
            included, never train.
    """
    if step not in ("a", "b"):
        raise ValueError(f"stage 1 has the steps a and b, not {step!r}")
    model.requires_grad_(False)
    for part in (model.language_maps, model.decoder, *([model.encoder.encoder] * (step == "b"))):
        part.requires_grad_(True)
    model.is_encoder_frozen = step == "a"
    model.train()


def set_encoder_dropout(model: TranslationModel, dropout: float) -> None:
    """Gives XLM-R's layers and attention another dropout than its config has. The config, which is
    saved with the encoder, is not changed.
    """
    for module in model.encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
