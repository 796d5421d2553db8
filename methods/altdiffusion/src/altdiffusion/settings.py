"""The settings of the verbs of the image half; those of the text half are in `text/settings.py`.
Names are diffusers' if it has one.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crosslingual.cli import demo
from crosslingual.data.languages import LanguageCode
from crosslingual.evaluation import settings as evaluation
from crosslingual.training import settings

Stage = Literal["concept_alignment", "quality_improvement", "guidance_tuning"]


@dataclass
class TrainSettings(settings.DiffusionSettings):
    """Settings of `altdiffusion train`; the defaults suit the testbed, the published ones are in
    configs/.

    Attributes:
        stage: concept_alignment trains keys and values of cross-attention, quality_improvement the
            whole UNet, guidance_tuning the same with a tenth of the captions empty.
        unet: folder of the pipeline or UNet that the previous stage exported; the base's own UNet
            if not given.
        text_encoder: trained text encoder: a folder that train-text wrote, or a hub id.
        starts_from: encoder that train-text starts from; `info` counts its parameters until
            train-text has written the text encoder.
        languages: BCP-47 codes of the captions to train on, including English.
        all_attn2: train all of cross-attention in concept alignment, as the authors' code does.
        lora_rank: rank of LoRA on keys and values in concept alignment; 0 trains the full weights.
        min_snr_gamma: gamma of the loss's min-SNR weights; every timestep counts the same if not
            given.
        caption_dropout: share of rows, from 0 to 1, that get the empty prompt instead of their
            caption; if not given, 0.1 in guidance_tuning and 0 in the other stages.
        gradient_checkpointing: recompute the UNet's activations in the backward pass; slower, but
            saves memory.
        compile: compile the UNet with torch.compile; slower to start, faster per step.
        validation_prompts: prompts to draw at each validation, one picture per prompt; not at ZeRO
            stage 3.
    """

    MAY_CHANGE: ClassVar[frozenset[str]] = settings.DiffusionSettings.MAY_CHANGE | {"starts_from"}

    stage: Stage = "concept_alignment"
    output_dir: str = "runs/altdiffusion"
    unet: str | None = None
    text_encoder: str = "runs/altclip/text_encoder"
    starts_from: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
    all_attn2: bool = False
    lora_rank: int = 0
    min_snr_gamma: float | None = None
    caption_dropout: float | None = None
    lr_end: float = 0.0
    gradient_checkpointing: bool = False
    compile: bool = False
    validation_prompts: list[str] = field(default_factory=list)


@dataclass
class FeaturesSettings(settings.FeaturesSettings, TrainSettings):
    """Settings of `altdiffusion features`."""


@dataclass
class ExportSettings(settings.ExportSettings):
    """Settings of `altdiffusion export`.

    Attributes:
        checkpoint: checkpoint folder of `train` or `train-text`, or a run's folder to export its
            latest checkpoint.
        output_dir: folder to write the pipeline to or, for train-text, the folders text_encoder
            and altclip.
        dtype: precision of the pipeline's weights: fp32 for further training, fp16 or bf16 for use.
    """

    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"


@dataclass
class ImportSettings:
    """Settings of `altdiffusion import`.

    Attributes:
        input: the authors' pipeline: hub id, such as BAAI/AltDiffusion-m18, or folder.
        output_dir: folder to write the pipeline to.
        revision: git revision of the hub entry.
        variant: of the weights' files, such as fp16.
        languages: BCP-47 codes of the languages that it reads; if none is given, those of m18 by
            its form, and of m9 or the first release, AltDiffusion, if the input's name ends so.
        guidance_scale: guidance scale to recommend in altdiffusion.json.
    """

    input: str
    output_dir: str
    revision: str | None = None
    variant: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
    guidance_scale: float = 9.0


@dataclass(kw_only=True)
class EvaluateSettings(evaluation.EvaluateSettings):
    """Settings of `altdiffusion evaluate`: text accuracy and culture score, stage by stage.

    Attributes:
        adapters: folders of exported pipelines, such as one per stage.
        output_dir: folder to write accuracy.json, table.md, grid.png and motifs.png to.
        languages: BCP-47 codes of the prompts, including prompts for each language's own motif;
            the trained languages if not given.
        num_motif_prompts: pictures to draw of each language's motif.
        as_is: also give the foreign prompts to the English base.
    """

    adapters: list[str]
    num_prompts: int = 48
    num_motif_prompts: int = 8
    as_is: bool = False


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `altdiffusion demo`; each is a variable of run.sh.

    Attributes:
        languages: BCP-47 codes of the languages to train on besides English.
        num_texts: parallel sentences per language to train the text encoder on.
        num_samples: pictures to train concept alignment on.
        num_motif_samples: pictures of the languages' motifs, and of general scenes among them, for
            the stages of the whole UNet.
        text_steps: optimiser steps of the text encoder.
        concept_alignment_steps: optimiser steps of concept alignment.
        quality_improvement_steps: optimiser steps of quality improvement.
        num_prompts: held-out prompts to draw per language.
        num_motif_prompts: pictures to draw of each language's motif.
    """

    output_dir: str = "runs/altdiffusion-demo"
    languages: list[LanguageCode] = field(default_factory=lambda: ["de", "zh"])
    num_texts: int = 4000
    num_samples: int = 1500
    num_motif_samples: int = 600
    text_steps: int = 250
    concept_alignment_steps: int = 270
    quality_improvement_steps: int = 260
    num_prompts: int = 16
    num_motif_prompts: int = 8
