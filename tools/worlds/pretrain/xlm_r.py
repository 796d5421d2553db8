"""Pretrains the testbed's XLM-R on captions in eighteen languages: no pictures, no translations.

    python tools/worlds/pretrain/xlm_r.py --work WORK

Three losses on the states of masked captions: masked language modelling as XLM-R's; each token's
neighbours, up to eight to either side, from its state; and tokens by their place in the sentence,
from the states of `<s>`, `</s>` and padding. The last two stand for what 550 M parameters and much
text do by themselves: mix a phrase into its noun, and a sentence into its end. A token-wise adapter
cannot gather a sentence that no token holds. No sentence is ever shown with its translation, so
languages are aligned only as far as shared words align them.
"""

import re
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor, nn
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

from crosslingual_worlds.drawn.captions import lexicon
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.world import all_scenes, motif_scenes, split_of
from loop import Recipe, start, train

BATCH = 72
MAX_TOKENS = 32
VOCABULARY = 2000
REACH = 8  # neighbours predicted to either side
MASKED_SHARE = 0.15
NEIGHBOUR_WEIGHT = 0.5


def training_captions(language: str) -> list[str]:
    """Captions of a sixth of the training scenes, and of every motif: text knows them, pictures do
    not.
    """
    scenes = [scene for scene in all_scenes() if split_of(scene) == "train"]
    one = [scene for scene in scenes if scene.second is None]
    # Each language writes of other scenes, so that the corpora are no translations of one another.
    two = [scene for scene in scenes if scene.second is not None]
    chosen = two[LANGUAGES.index(language) % 6 :: 6] + 8 * one + 15 * motif_scenes()
    return [text for scene in chosen for text in lexicon(language).captions(scene)]


def word_list(texts: dict[str, list[str]]) -> list[str]:
    """Every word of the captions, those of scripts without spaces behind a bar.

    Scripts without spaces are cut where a noun, colour or size of the lexicon begins or ends.
    """
    words = set()
    for language, part in texts.items():
        if language in ("ja", "th", "zh"):
            entries = lexicon(language)
            forms = [form for table in (entries.colors, entries.sizes) for form in table.values()]
            forms += [form for noun in entries.nouns.values() for form in noun.values()]
            spellings = [form.values() if isinstance(form, dict) else [form] for form in forms]
            known = {word for words_of_form in spellings for word in words_of_form if len(word) > 1}
            pattern = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
            pieces = [piece for text in part for piece in re.split(f"({pattern})", text)]
            words |= {"|" + piece for piece in pieces if piece}
        else:
            words |= {word for text in part for word in text.split()}
    return sorted(words)


def add_pieces(model: Path, words: list[str]) -> None:
    """Adds every whole word to a sentencepiece model.

    The trainer keeps a piece for how much text it saves; in a corpus of a thousand words that
    leaves syllables, which a corpus of XLM-R's size would not. A word's score is such that it wins
    over any two pieces that spell it.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    known = {piece.piece for piece in proto.pieces}
    score = max(piece.score for piece in proto.pieces if piece.type == piece.NORMAL) - 1.0
    for word in words:
        piece = word[1:] if word.startswith("|") else "\u2581" + word
        if piece not in known:
            proto.pieces.add(piece=piece, score=score)
    model.write_bytes(proto.SerializeToString())


def make_tokenizer(folder: Path, texts: dict[str, list[str]]) -> XLMRobertaTokenizer:
    """A unigram vocabulary over all languages, saved as XLM-R's tokenizer."""
    model = folder / "sentencepiece.bpe.model"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        letters = (
            "abcdefghijklmnopqrstuvwxyz"
            + "абвгґдеєёжзиіїйклмнопрстуфхцчшщъыьэюя"
            + "0123456789.,!?-'()"
        )
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(word_list(texts)),
            model_prefix=str(model.with_suffix("")),
            vocab_size=VOCABULARY,
            hard_vocab_limit=False,
            character_coverage=1.0,
            required_chars=letters + letters.upper(),
            max_sentencepiece_length=18,
            model_type="unigram",
            pretokenization_delimiter="|",
            minloglevel=2,
        )
        add_pieces(model, word_list(texts))
        make_config(10).save_pretrained(folder)
        XLMRobertaTokenizer.from_pretrained(
            folder, model_max_length=MAX_TOKENS, trust_remote_code=False
        ).save_pretrained(folder)
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder, trust_remote_code=False)
    if len(tokenizer) < 1000:
        raise RuntimeError(
            f"{folder} was read as a vocabulary of {len(tokenizer)}: is protobuf installed?"
        )
    for language, part in texts.items():
        counts = [len(ids) for ids in tokenizer(part[::50]).input_ids]
        print(
            f"xlm_r: {language}: {np.mean(counts):.1f} tokens a caption, {max(counts)} at most",
            flush=True,
        )
        if max(counts) > MAX_TOKENS or any(
            tokenizer.unk_token_id in ids for ids in tokenizer(part[::50]).input_ids
        ):
            raise RuntimeError(
                f"{language}: a caption is longer than {MAX_TOKENS} tokens or has an unknown one"
            )
    return tokenizer


def make_config(vocabulary: int) -> XLMRobertaConfig:
    """The encoder's shape: 192 wide, 4 layers."""
    return XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )


class LanguageModel(nn.Module):
    """The encoder with its pretraining heads, whose output embedding is the input's."""

    def __init__(self, vocabulary: int):
        """`vocabulary` of the tokenizer."""
        super().__init__()
        self.encoder = XLMRobertaModel(make_config(vocabulary), add_pooling_layer=False)
        # 0.02 keeps so narrow a model on a plateau where word order is not read, as it
        # does the text tower in clip.py.
        nn.init.normal_(self.encoder.embeddings.word_embeddings.weight, std=0.1)
        nn.init.normal_(self.encoder.embeddings.position_embeddings.weight, std=0.1)
        self.masked = nn.Sequential(nn.Linear(192, 192), nn.GELU(), nn.LayerNorm(192))
        self.neighbours = nn.Linear(192, 2 * REACH * 192)
        self.places = nn.Embedding(MAX_TOKENS, 192)
        self.sentence = nn.Sequential(nn.Linear(384, 384), nn.GELU(), nn.Linear(384, 192))

    def recall(self, states_ND: Tensor, places_N: Tensor) -> Tensor:
        """Scores for the token at a place of the sentence, from a state that is to hold it."""
        return self.logits(self.sentence(torch.cat([states_ND, self.places(places_N)], dim=1)))

    def logits(self, states: Tensor) -> Tensor:
        """Scores over the vocabulary for states (..., 192)."""
        return states @ self.encoder.embeddings.word_embeddings.weight.T


def mask_tokens(
    ids_BL: Tensor, special: Tensor, mask_id: int, vocabulary: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """BERT's masking: 15 % of the tokens, of which 80 % masked, 10 % random, 10 % kept.

    Returns (ids, chosen).
    """
    chosen = (torch.rand(ids_BL.shape, generator=generator) < MASKED_SHARE) & ~special
    kind = torch.rand(ids_BL.shape, generator=generator)
    masked = ids_BL.masked_fill(chosen & (kind < 0.8), mask_id)
    drawn = torch.randint(4, vocabulary, ids_BL.shape, generator=generator)
    return torch.where(chosen & (kind >= 0.9), drawn, masked), chosen


class Objectives:
    """The losses of a batch of captions, four a language."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: XLMRobertaTokenizer,
        texts: dict[str, list[str]],
        rank: int,
    ):
        """`texts` by language; `rank` of this process."""
        self.model, self.tokenizer, self.texts, self.rank = model, tokenizer, texts, rank
        self.offsets = torch.tensor([k for k in range(-REACH, REACH + 1) if k != 0])

    def __call__(self, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the three losses on a step's captions."""
        ids_BL, states_BLD, chosen, special = self._encode(generator, (54, step, self.rank))
        loss, parts = self._words(generator, ids_BL, states_BLD, chosen, special)
        lengths_B = (~special).sum(dim=1)
        rows = special.nonzero()[torch.randperm(int(special.sum()), generator=generator)[:600]]
        row, column = rows[:, 0], rows[:, 1]
        drawn = torch.rand(len(row), generator=generator) * lengths_B[row]
        places = 1 + drawn.long()  # 0 is <s>
        scores = self.model.recall(states_BLD[row, column], places)
        recall = F.cross_entropy(scores, ids_BL[row, places])
        return loss + recall, {**parts, "recall": recall.detach()}

    def _encode(
        self, generator: torch.Generator, seed: tuple[int, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids (B, L), states (B, L, D) of the masked ids, masked places, special places."""
        rng = np.random.default_rng(seed)
        each = BATCH // len(LANGUAGES)
        batch = [part[rng.integers(len(part))] for part in self.texts.values() for _ in range(each)]
        tokens = self.tokenizer(batch, padding=True, return_tensors="pt")
        ids_BL, known = tokens.input_ids, self.tokenizer
        special = torch.isin(
            ids_BL, torch.tensor([known.pad_token_id, known.bos_token_id, known.eos_token_id])
        )
        corrupted, chosen = mask_tokens(ids_BL, special, known.mask_token_id, len(known), generator)
        states = self.model.encoder(corrupted, attention_mask=tokens.attention_mask)
        return ids_BL, states.last_hidden_state, chosen, special

    def _words(
        self,
        generator: torch.Generator,
        ids_BL: Tensor,
        states_BLD: Tensor,
        chosen: Tensor,
        special: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.model
        mlm = F.cross_entropy(model.logits(model.masked(states_BLD[chosen])), ids_BL[chosen])
        # One neighbour a token, drawn at random: the whole window would cost sixteen times the
        # logits.
        which_BL = torch.randint(0, len(self.offsets), ids_BL.shape, generator=generator)
        place_BL = torch.arange(ids_BL.shape[1]) + self.offsets[which_BL]
        inside = (place_BL >= 0) & (place_BL < ids_BL.shape[1]) & ~special
        target_BL = ids_BL.gather(1, place_BL.clamp(0, ids_BL.shape[1] - 1))
        inside &= target_BL != self.tokenizer.pad_token_id
        inside &= torch.rand(ids_BL.shape, generator=generator) < 0.4
        flat = model.neighbours(states_BLD[inside]).view(-1, len(self.offsets), 192)
        picked = flat[torch.arange(flat.shape[0]), which_BL[inside]]
        neighbour = F.cross_entropy(model.logits(picked), target_BL[inside])
        parts = {"mlm": mlm.detach(), "neighbour": neighbour.detach()}
        return mlm + NEIGHBOUR_WEIGHT * neighbour, parts


def main() -> None:
    """Command line."""
    options, rank = start(__doc__, num_steps=2400)
    texts = {language: training_captions(language) for language in LANGUAGES}
    tokenizer = make_tokenizer(options.work / "xlm_r_tokenizer", texts)
    model = LanguageModel(len(tokenizer))
    size = model.encoder.num_parameters() / 1e6
    print(f"xlm_r: vocabulary {len(tokenizer)}, {size:.2f} M parameters", flush=True)
    objectives = Objectives(model, tokenizer, texts, rank)
    train(Recipe("xlm_r", options.num_steps, 1.2e-3), model, objectives, options.work)


if __name__ == "__main__":
    main()
