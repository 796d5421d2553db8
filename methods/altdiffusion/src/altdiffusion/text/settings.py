"""The settings of the verbs of the text half: AltCLIP's training, and its retrieval."""

from dataclasses import dataclass, field
from typing import Literal

from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation import settings
from crosslingual.training.settings import ContinualSettings, EncoderSettings, RunSettings


@dataclass
class TrainTextSettings(ContinualSettings, EncoderSettings, RunSettings):
    """Settings of `altdiffusion train-text`; the defaults suit the testbed, the published ones are
    in configs/.

    Attributes:
        stage: teacher_learning, or contrastive, which continues with a trained student.
        train_data: prefixes of parallel text, or folders of shards; with pictures for contrastive.
        output_dir: folder to write sentences, checkpoints, metrics and the trained models to.
        train_batch_size: sentences per process and micro-step.
        teacher: CLIP whose text encoder is the teacher and whose vision tower AltCLIP keeps: hub
            id, folder or testbed:clip.
        teacher_revision: git revision of the teacher on the hub.
        text_encoder: encoder that the student starts from: an XLM-R (hub id, folder or
            testbed:xlm-r), or the folder text_encoder of an earlier run.
        init_from: folder text_encoder of an earlier run to go on from, whose weights then take the
            place of those of text_encoder.
        rehearsal: share of the sentences, from 0 to 1, that are in rehearsal_languages, so that the
            student keeps these; if not given, every sentence of train_data counts alike.
        text_encoder_revision: git revision of that encoder on the hub.
        languages: BCP-47 codes of the sentences to train on; all of train_data if not given.
        keep_english: also train on the English sentences, not only on their translations.
        max_length: tokens per sentence; if not given, the encoder's own limit, at most 77.
        gradient_checkpointing: recompute the student's activations in the backward pass; slower,
            but saves memory.
        validation_data: shards or prefixes of held-out parallel text.
        validation_rows: number of English sentences to validate on, from the start of the data.
    """

    stage: Literal["teacher_learning", "contrastive"] = "teacher_learning"
    train_data: list[str] = field(default_factory=list)
    output_dir: str = "runs/altclip"
    teacher: str = "testbed:clip"
    teacher_revision: str | None = None
    text_encoder: str = "testbed:xlm-r"
    text_encoder_revision: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
    keep_english: bool = True
    max_length: int | None = None
    train_batch_size: int = 128
    gradient_checkpointing: bool = False
    validation_data: list[str] = field(default_factory=list)
    validation_rows: int = 500


@dataclass
class EvaluateRetrievalSettings(settings.EvaluateRetrievalSettings):
    """Settings of `altdiffusion evaluate-retrieval`."""

    num_bootstrap: int = 1000
