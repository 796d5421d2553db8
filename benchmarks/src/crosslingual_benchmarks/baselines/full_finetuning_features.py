"""Latents and token ids for full fine-tuning, once.

    torchrun --nproc_per_node 2 -m crosslingual_benchmarks.baselines.full_finetuning_features \\
        --shards shards --features_dir features --languages en de zh
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from crosslingual.cli.verbs import run_verb
from crosslingual.features.compute import write_features
from crosslingual.training.processes import start_processes
from crosslingual_benchmarks.baselines.full_finetuning import FullFinetuningSettings, caption_parts


@dataclass
class FeaturesSettings:
    """Settings of the pass.

    Attributes:
        shards: pictures with captions.
        features_dir: where the features go.
        pretrained_model_name_or_path: the base, for its VAE.
        text_encoder: the XLM-R whose tokenizer reads the captions.
        languages: of the captions.
        resolution: of the pictures in pixels.
        encode_batch_size: pictures at a time.
    """

    shards: str
    features_dir: str
    pretrained_model_name_or_path: str = "testbed:sd"
    text_encoder: str = "testbed:xlm-r"
    languages: list[str] = field(default_factory=list)
    resolution: int = 64
    encode_batch_size: int = 32


def features(settings: FeaturesSettings) -> Path:
    """Writes the features of `shards` to `features_dir`; a second run goes on where the first one
    stopped.
    """
    ranks = start_processes()
    base, encoder = settings.pretrained_model_name_or_path, settings.text_encoder
    like = FullFinetuningSettings("", "", base, encoder, settings.languages)
    return write_features(
        caption_parts(like, ranks.device),
        settings.shards,
        settings.features_dir,
        ranks=ranks,
        resolution=settings.resolution,
        batch_size=settings.encode_batch_size,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m crosslingual_benchmarks.baselines.full_finetuning_features`."""
    prog = "python -m crosslingual_benchmarks.baselines.full_finetuning_features"
    return run_verb(prog, FeaturesSettings, features, argv)


if __name__ == "__main__":
    sys.exit(main())
