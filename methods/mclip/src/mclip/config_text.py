"""The settings of stage 1's verbs: parallel text, the encoder's enhancement, translation."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TokenizeSettings:
    """Settings of `mclip tokenize`.

    Attributes:
        train_data: Moses prefixes and folders of shards.
        tokens_dir: where the token arrays go.
        text_encoder: whose tokenizer is used.
        text_encoder_revision: of the encoder.
        pairs: en-centric (English with each other language, both ways), all, or such as en-de.
        max_length: tokens a sentence, start and end included; the encoder's limit, and at most 256,
            if not given.
    """

    train_data: list[str] = field(default_factory=list)
    tokens_dir: str = ""
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    pairs: list[str] = field(default_factory=lambda: ["en-centric"])
    max_length: int | None = None


@dataclass
class TrainEncoderSettings:
    """Settings of `mclip train-encoder`; the defaults are the testbed's, the published ones stand
    in configs/.

    Attributes:
        step: a (a decoder on the frozen encoder) or b (encoder and decoder, NMT + CTL).
        train_data: a folder of tokens, or Moses prefixes and folders of shards.
        output_dir: where checkpoints, metrics and the translation model go.
        text_encoder: the pretrained encoder, a hub id, a folder or testbed:xlm-r.
        text_encoder_revision: of the encoder.
        translation_model: the folder of a former step, instead of a fresh decoder.
        pairs: en-centric (English with each other language, both ways), all, or such as en-de.
        pair_temperature: T of p ~ n^(1/T), by which pairs are drawn.
        max_length: tokens a sentence, start and end included; the encoder's limit, and at most 256,
            if not given.
        num_decoder_layers: of the decoder.
        decoder_ffn_width: of the decoder.
        num_decoder_heads: of the decoder.
        dropout: of the decoder.
        encoder_dropout: of XLM-R, in step b; its own config's if not given.
        both_ways: translate each batch back as well; in step b, which encodes both sides anyway,
            this costs a pass of the decoder.
        label_smoothing: of the translation loss.
        ctl_weight: of the contrast between translations, in step b.
        ctl_temperature: of that contrast.
        chunk_rows: rows of its similarity matrix that exist at a time.
        chunk_tokens: target tokens whose scores over the vocabulary exist at a time.
        train_batch_size: sentence pairs a process and micro-step.
        gradient_accumulation_steps: micro-steps a step.
        max_train_steps: optimiser steps.
        learning_rate: peak.
        lr_scheduler: inverse_sqrt as published, or one of diffusers' schedules.
        lr_warmup_steps: of the schedule.
        lr_end: where the polynomial schedule ends.
        adam_beta1: the optimiser's.
        adam_beta2: the optimiser's.
        weight_decay: the optimiser's.
        max_grad_norm: gradients are clipped to it.
        mixed_precision: no or bf16.
        deepspeed_config: a DeepSpeed JSON; ZeRO stage 0 if not given.
        seed: of everything drawn.
        checkpointing_steps: steps between checkpoints.
        checkpoints_total_limit: how many are kept.
        resume_from_checkpoint: a checkpoint folder or latest.
        validation_steps: steps between validations, 0 for none.
        validation_data: parallel text for validation, like `train_data`.
        validation_rows: sentence pairs a pair of languages, the first ones.
        num_translated: of these, how many are translated for BLEU.
        report_to: none, tensorboard, wandb or trackio.
    """

    step: Literal["a", "b"] = "a"
    train_data: list[str] = field(default_factory=list)
    output_dir: str = "runs/encoder"
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    translation_model: str | None = None
    pairs: list[str] = field(default_factory=lambda: ["en-centric"])
    pair_temperature: float = 5.0
    max_length: int | None = None
    num_decoder_layers: int = 2
    decoder_ffn_width: int = 768
    num_decoder_heads: int = 4
    dropout: float = 0.1
    encoder_dropout: float | None = None
    both_ways: bool = False
    label_smoothing: float = 0.1
    ctl_weight: float = 2.0
    ctl_temperature: float = 0.1
    chunk_rows: int = 1024
    chunk_tokens: int = 256
    train_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 500
    learning_rate: float = 5e-4
    lr_scheduler: str = "inverse_sqrt"
    lr_warmup_steps: int = 50
    lr_end: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    weight_decay: float = 0.0
    max_grad_norm: float = 2.0
    mixed_precision: Literal["no", "bf16"] = "no"
    deepspeed_config: str | None = None
    seed: int = 0
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    validation_steps: int = 0
    validation_data: list[str] = field(default_factory=list)
    validation_rows: int = 500
    num_translated: int = 100
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"


@dataclass
class TranslateSettings:
    """Settings of `mclip translate`.

    Attributes:
        model: the translation folder that `mclip train-encoder` wrote.
        target_language: to translate into.
        input: a file with a sentence a line, or - for standard input.
        output: where the translations go; standard output if not given.
        references: a file of right translations; BLEU is printed then.
        num_beams: of the search.
        batch_size: sentences at a time.
        max_length: tokens of a translation; the encoder's limit if not given.
    """

    model: str
    target_language: str
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
        languages: to test.
        output_dir: where text_retrieval.jsonl goes, a line a run.
        encoder: an encoder's id or folder; the translation model's if not given.
        translation_model: a translation folder; BLEU is measured too.
        into: the language translated into.
        num_beams: of the translation.
        max_length: tokens a sentence.
        batch_size: sentences at a time.
    """

    data: str
    languages: list[str]
    output_dir: str
    encoder: str | None = None
    translation_model: str | None = None
    into: str = "en"
    num_beams: int = 5
    max_length: int | None = None
    batch_size: int = 128
