"""The settings of stage 1's verbs: parallel text, the encoder's enhancement, translation."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crosslingual.data.languages import LanguageCode
from crosslingual.training.settings import LrScheduler, RunSettings


@dataclass
class TokenizeSettings:
    """Settings of `mclip tokenize`.

    Attributes:
        train_data: Moses prefixes and folders of shards.
        tokens_dir: folder that gets the token arrays.
        text_encoder: encoder whose tokenizer is used: hub id, folder, or testbed:xlm-r.
        text_encoder_revision: git revision of the encoder on the hub.
        pairs: en-centric (English with each other language, both ways), all, or such as en-de.
        max_length: tokens per sentence, start and end included; the encoder's limit, and at most
            256, if not given.
    """

    train_data: list[str] = field(default_factory=list)
    tokens_dir: str = ""
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    pairs: list[str] = field(default_factory=lambda: ["en-centric"])
    max_length: int | None = None


@dataclass
class TrainEncoderSettings(RunSettings):
    """Settings of `mclip train-encoder`; the defaults suit the testbed, the published ones are in
    configs/.

    Attributes:
        step: a (train a decoder on the frozen encoder) or b (encoder and decoder, NMT + CTL).
        train_data: folder of tokens, or Moses prefixes and folders of shards.
        output_dir: folder that gets checkpoints, metrics.jsonl and the translation model.
        text_encoder: pretrained encoder: hub id, folder, or testbed:xlm-r.
        text_encoder_revision: git revision of the encoder on the hub.
        starts_from: encoder of the shape of text_encoder; `info` counts it until text_encoder is
            there.
        translation_model: folder of an earlier step's model, which replaces a new decoder.
        pairs: en-centric (English with each other language, both ways), all, or such as en-de.
        pair_temperature: T of p ~ n^(1/T), by which the pair of a batch is drawn.
        max_length: tokens per sentence, start and end included; the encoder's limit, and at most
            256, if not given.
        num_decoder_layers: layers of the decoder.
        decoder_ffn_width: inner width of the decoder's layers.
        num_decoder_heads: attention heads of the decoder.
        dropout: dropout of the decoder.
        encoder_dropout: dropout of XLM-R in step b; its own config's if not given.
        output_vocabulary: tokens that the decoder predicts: encoder, all of it (as published), or
            text, those of train_data alone: scores over 250,002 tokens cost more than all else.
            Each step has its own; validation leaves out tokens that are not predicted.
        both_ways: translate each batch back as well; in step b, which encodes both sides anyway,
            this costs a pass of the decoder.
        label_smoothing: share of the label that the translation loss spreads over the vocabulary.
        ctl_weight: weight of the contrast between translations, in step b.
        ctl_temperature: temperature of that contrast.
        ctl_scale: paper (the sum of both means, with ctl_weight) or released (the authors' code,
            which divides CTL by the sentences of a process as well).
        ctl_states: states whose mean is a sentence's vector: encoder, XLM-R's on both sides; or
            mapped, the source's after its target language's map, as in the authors' code.
        chunk_rows: rows of its similarity matrix that are in memory at a time.
        chunk_tokens: target tokens whose scores over the vocabulary are in memory at a time.
        train_batch_size: sentence pairs per process and micro-step.
        validation_data: parallel text to validate on; needed if validation_steps is not 0.
        validation_rows: sentences of the validation per pair of languages.
        num_translated: sentences per direction that the validation translates.
    """

    MAY_CHANGE: ClassVar[frozenset[str]] = RunSettings.MAY_CHANGE | {
        "chunk_rows",
        "chunk_tokens",
        "num_translated",
        "starts_from",
    }
    FORMER_NAMES: ClassVar[dict[str, str]] = {"weight_decay": "adam_weight_decay"}

    train_data: list[str] = field(default_factory=list)
    output_dir: str = "runs/encoder"
    step: Literal["a", "b"] = "a"
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    starts_from: str | None = None
    translation_model: str | None = None
    pairs: list[str] = field(default_factory=lambda: ["en-centric"])
    pair_temperature: float = 5.0
    max_length: int | None = None
    num_decoder_layers: int = 2
    decoder_ffn_width: int = 768
    num_decoder_heads: int = 4
    dropout: float = 0.1
    encoder_dropout: float | None = None
    output_vocabulary: Literal["encoder", "text"] = "encoder"
    both_ways: bool = False
    label_smoothing: float = 0.1
    ctl_weight: float = 2.0
    ctl_temperature: float = 0.1
    ctl_scale: Literal["paper", "released"] = "paper"
    ctl_states: Literal["encoder", "mapped"] = "encoder"
    chunk_rows: int = 1024
    chunk_tokens: int = 256
    train_batch_size: int = 64
    max_train_steps: int = 500
    learning_rate: float = 5e-4
    lr_scheduler: LrScheduler = "inverse_sqrt"
    adam_beta2: float = 0.98
    adam_weight_decay: float = 0.0
    max_grad_norm: float = 2.0
    validation_data: list[str] = field(default_factory=list)
    validation_rows: int = 500
    num_translated: int = 100


@dataclass
class TranslateSettings:
    """Settings of `mclip translate`.

    Attributes:
        model: translation folder that `mclip train-encoder` wrote.
        target_language: BCP-47 code of the language to translate into.
        input: file with one sentence per line, or - for standard input.
        output: file that gets the translations; standard output if not given.
        references: file of correct translations, line for line; BLEU is printed then.
        num_beams: beams of the search; 1 is greedy.
        batch_size: sentences that are translated at a time.
        max_length: tokens of a translation; the encoder's limit if not given.
    """

    model: str
    target_language: LanguageCode
    input: str = "-"
    output: str | None = None
    references: str | None = None
    num_beams: int = 5
    batch_size: int = 32
    max_length: int | None = None


@dataclass
class EvaluateTextSettings:
    """Settings of `mclip evaluate-text`: retrieval of sentences between every two languages.

    Attributes:
        data: shards with captions in the languages.
        languages: BCP-47 codes of the languages to test.
        output_dir: folder that gets text_retrieval.jsonl, one line per run.
        encoder: encoder's hub id or folder; the translation model's if not given.
        translation_model: translation folder; BLEU is measured too.
        into: language to translate into.
        num_beams: beams of the translation; 1 is greedy.
        max_length: tokens per sentence.
        batch_size: sentences that are encoded or translated at a time.
    """

    data: str
    languages: list[LanguageCode]
    output_dir: str
    encoder: str | None = None
    translation_model: str | None = None
    into: str = "en"
    num_beams: int = 5
    max_length: int | None = None
    batch_size: int = 128
