"""The settings that every training run, `features` and `export` has; those of a method extend them.

@dataclass
class TrainSettings(DiffusionSettings):
    \"\"\"Settings of `pea train`.

    Attributes:
        hidden_width: width of the adapter's hidden layers.
    \"\"\"

    output_dir: str = "runs/pea"    # overrides a default; the help text is inherited
    hidden_width: int = 384
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crosslingual.data.languages import LanguageCode

LrScheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]


@dataclass
class RunSettings:
    """Settings of a training run.

    Attributes:
        train_data: folder of features (made by the `features` verb) or of shards to train on.
        output_dir: folder that gets checkpoints, metrics.jsonl and the export.
        seed: seed of the weights, the order of samples and everything that is drawn.
        train_batch_size: samples per process and micro-step.
        gradient_accumulation_steps: micro-steps per optimiser step.
        max_train_steps: optimiser steps of the whole run.
        learning_rate: peak learning rate of AdamW.
        lr_scheduler: how the learning rate falls after the warm-up.
        lr_warmup_steps: optimiser steps in which the learning rate rises from 0 to its peak.
        lr_end: learning rate at which the polynomial schedule ends.
        adam_beta1: decay rate of AdamW's mean of gradients.
        adam_beta2: decay rate of AdamW's mean of squared gradients.
        adam_weight_decay: weight decay of AdamW.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them as they are.
        mixed_precision: no for fp32, or bf16 autocast over fp32 weights.
        use_ema: export the moving average of the weights instead of the last ones; not at ZeRO
            stage 3.
        ema_decay: share of the moving average that stays at each step.
        deepspeed_config: DeepSpeed JSON file, for ZeRO; stage 0 without one.
        checkpointing_steps: optimiser steps between checkpoints.
        checkpoints_total_limit: how many checkpoints are kept, the newest ones.
        resume_from_checkpoint: checkpoint folder to resume from, or latest.
        validation_steps: optimiser steps between validations; 0 validates nothing.
        validation_data: held-out data to validate on; needed if validation_steps is not 0.
        validation_rows: samples of the validation, the first ones of validation_data.
        verify_data: compare each block of features, or local shard with an index, with its SHA-256
            when it is first read, about a second a GB; false skips this for huge sets, and damage
            is then trained on.
        max_corrupt: share of the samples of shards that may be unusable before the run stops.
        max_pixels: pixels that a picture in shards may have; a larger one is unusable. One of 64
            million, the default, takes about 0.7 GB to decode in each process.
        report_to: tracker that gets the numbers besides metrics.jsonl.
        dry_run: build everything, take three steps, print the memory and the time of a step, and
            write nothing.
        push_to_hub: upload the export to the hub when the run is done, by the login of `hf auth
            login` or HF_TOKEN.
        hub_model_id: repository on the hub, such as NAME/MODEL; it is made if it is not there.
    """

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        "output_dir max_train_steps deepspeed_config checkpointing_steps checkpoints_total_limit "
        "resume_from_checkpoint validation_steps validation_data validation_rows "
        "validation_prompts verify_data max_corrupt max_pixels report_to dataloader_num_workers "
        "guidance_scale compile gradient_checkpointing dry_run push_to_hub hub_model_id".split()
    )
    """Settings that a resumed run may change: they do not change what is trained, except the number
    of steps, which the learning rate follows. A method adds its own."""

    SHARES: ClassVar[frozenset[str]] = frozenset(
        ("train_batch_size", "gradient_accumulation_steps")
    )
    """Settings that may change as long as a step has as many samples. A method whose loss compares
    the samples of a micro-step keeps the size of that."""

    FORMER_NAMES: ClassVar[dict[str, str]] = {}
    """Names that settings had in earlier versions: flags and files may still use them."""

    train_data: str = ""
    output_dir: str = "runs/run"
    seed: int = 0
    train_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: LrScheduler = "polynomial"
    lr_warmup_steps: int = 50
    lr_end: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    mixed_precision: Literal["no", "bf16"] = "no"
    use_ema: bool = False
    ema_decay: float = 0.999
    deepspeed_config: str | None = None
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    validation_steps: int = 0
    validation_data: str | None = None
    validation_rows: int = 64
    verify_data: bool = True
    max_corrupt: float = 0.01
    max_pixels: int = 64 * 2**20
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    dry_run: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None


@dataclass
class ContinualSettings:
    """Settings of a run that may go on from an export, such as to add languages to it.

    Attributes:
        init_from: folder of an export to go on from, of the same base, encoder and shape; the run
            starts from new weights if not given.
        rehearsal: share of the captions, from 0 to 1, that are of rehearsal_languages, so that the
            model keeps them; if not given, they count as any other languages that train.
        rehearsal_languages: languages of the rehearsal, each as often as the others, which must be
            among those that train; English if none is named.
    """

    init_from: str | None = None
    rehearsal: float | None = None
    rehearsal_languages: list[LanguageCode] = field(default_factory=list)

    def rehearsed(self, languages: Sequence[str], flag: str = "languages") -> list[bool] | None:
        """Which of the languages that train are rehearsed; None where `rehearsal` is not given.

        `flag` is the setting that names the languages.

        Raises:
            ValueError: the share lies outside of 0 and 1 or is missing, or a language of the
                rehearsal does not train.
        """
        if self.rehearsal is None:
            if self.rehearsal_languages:
                raise ValueError(
                    "rehearsal_languages needs --rehearsal, the share of their captions"
                )
            return None
        wanted = self.rehearsal_languages or ["en"]
        if missing := " ".join(name for name in wanted if name not in languages):
            raise ValueError(f"rehearsal draws captions in {missing}: add {missing} to --{flag}")
        if not 0 <= self.rehearsal <= 1:
            raise ValueError("rehearsal is a share: it must lie between 0 and 1")
        return [name in wanted for name in languages]


@dataclass
class EncoderSettings:
    """Settings of a run that trains a multilingual encoder.

    Attributes:
        train_embeddings: train the encoder's word embeddings with its layers; if not, a run holds
            no gradient and no optimiser state of 250,002 rows, of which it reads few.
    """

    train_embeddings: bool = True


@dataclass
class CaptionSettings(RunSettings):
    """Settings of a training run on captions, for a frozen diffusion model.

    Attributes:
        pretrained_model_name_or_path: English base model: hub id, folder, or a world's such as
            testbed:sd.
        revision: git revision of the base on the hub.
        text_encoder: multilingual text encoder: hub id, folder, or a world's such as
            testbed:xlm-r.
        text_encoder_revision: git revision of the text encoder on the hub.
        max_length: tokens per prompt; the encoder's own limit, and at most 77, if not given.
        caption_dropout: share of rows that see the empty prompt instead of their caption.
        dataloader_num_workers: processes that decode shards; features need none.
        caption_keys: which JSON key of foreign shards holds which language, as caption_zh=zh.
        guidance_scale: guidance scale that the exported config recommends, also for the pictures
            drawn at validations.
    """

    pretrained_model_name_or_path: str = "testbed:sd"
    revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    max_length: int | None = None
    caption_dropout: float = 0.1
    dataloader_num_workers: int = 0
    caption_keys: list[str] = field(default_factory=list)
    guidance_scale: float = 3.0


@dataclass
class DiffusionSettings(CaptionSettings):
    """Settings of a training run through a frozen diffusion model, on captions and pictures.

    Attributes:
        noise_offset: strength of a shift of the noise, one number per channel.
        resolution: edge of the pictures in pixels.
    """

    lr_end: float = 5e-8
    noise_offset: float = 0.0
    resolution: int = 64


@dataclass
class FeaturesSettings:
    """What a `features` verb needs besides the settings of training, of which the frozen parts and
    the languages matter, so that one file serves both.

    A method's own are `class FeaturesSettings(settings.FeaturesSettings, TrainSettings)`.

    Attributes:
        shards: folder of shards (or their names) to compute features of.
        features_dir: folder that the features go to.
        encode_batch_size: samples that pass the frozen parts at a time.
    """

    shards: str = ""
    features_dir: str = ""
    encode_batch_size: int = 32


@dataclass
class ExportSettings:
    """Settings of an `export` verb.

    Attributes:
        checkpoint: checkpoint folder, or a run's folder, whose latest checkpoint is taken.
        output_dir: folder that the export goes to.
    """

    checkpoint: str
    output_dir: str
