"""The settings of the verbs of the generating half; those of the text half are in
`text/settings.py`. Names are diffusers' where it has one.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crosslingual.cli import demo
from crosslingual.evaluation import generation
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
        starts_from: what train-text starts the text encoder from; `info` counts the text encoder
            by it until train-text has written one.
        languages: BCP-47 codes of the captions that train, English among them.
        all_attn2: concept alignment trains all of cross-attention, as the authors' code does.
        lora_rank: rank of LoRA on keys and values in concept alignment; 0 trains them themselves.
        min_snr_gamma: gamma of min-SNR weights of the loss; every timestep counts the same if not
            given.
        caption_dropout: share of rows that see the empty prompt instead of their caption; 0.1 in
            guidance_tuning and 0 in the other stages if not given.
        gradient_checkpointing: computes the UNet's activations again in the backward pass, which
            saves memory and costs time.
        compile: compiles the UNet by torch.compile.
        validation_prompts: prompts whose pictures are drawn at each validation; not at ZeRO stage
            3.
    """

    MAY_CHANGE: ClassVar[frozenset[str]] = settings.DiffusionSettings.MAY_CHANGE | {"starts_from"}

    stage: Stage = "concept_alignment"
    output_dir: str = "runs/altdiffusion"
    unet: str | None = None
    text_encoder: str = "runs/altclip/text_encoder"
    starts_from: str | None = None
    languages: list[str] = field(default_factory=list)
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
        checkpoint: checkpoint folder of `train` or `train-text`, or a run's folder, whose latest
            checkpoint is taken.
        output_dir: folder that the pipeline is written to; of train-text, text_encoder and altclip
            are written into it.
        dtype: precision of a pipeline's weights: fp32 to train on with, fp16 or bf16 to use.
    """

    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"


@dataclass(kw_only=True)
class EvaluateSettings(generation.EvaluateSettings):
    """Settings of `altdiffusion evaluate`: text accuracy and culture score, stage by stage.

    Attributes:
        adapters: folders of exported pipelines, such as those of each stage in turn.
        output_dir: folder that gets accuracy.json, table.md, grid.png and motifs.png.
        languages: languages of the prompts; each is also asked for its own motif. Those that were
            trained if not given.
        num_motif_prompts: pictures of each language's motif.
        as_is: whether the English base is given the foreign prompts too.
    """

    adapters: list[str]
    num_prompts: int = 48
    num_motif_prompts: int = 8
    as_is: bool = False


@dataclass
class DemoSettings(demo.DemoSettings):
    """Settings of `altdiffusion demo`; each is a variable of run.sh.

    Attributes:
        languages: BCP-47 codes of the languages that train beside English.
        num_texts: parallel sentences in each language for the text encoder.
        num_samples: pictures of concept alignment.
        num_motif_samples: pictures of the languages' motifs, and of general ones among them, for
            the stages of the whole UNet.
        text_steps: optimiser steps of the text encoder.
        concept_alignment_steps: optimiser steps of concept alignment.
        quality_improvement_steps: optimiser steps of quality improvement.
        num_prompts: held-out prompts in each language.
        num_motif_prompts: pictures of each language's motif.
    """

    output_dir: str = "runs/altdiffusion-demo"
    languages: list[str] = field(default_factory=lambda: ["de", "zh"])
    num_texts: int = 4000
    num_samples: int = 1500
    num_motif_samples: int = 600
    text_steps: int = 250
    concept_alignment_steps: int = 270
    quality_improvement_steps: int = 260
    num_prompts: int = 16
    num_motif_prompts: int = 8
