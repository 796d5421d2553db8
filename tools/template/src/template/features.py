"""`template features`: the captions of shards through the frozen text encoders, once.

template features --config configs/testbed.yaml --shards shards --features_dir features
torchrun --nproc_per_node 8 -m template.features ...      # ranks share the blocks
"""

import sys
from pathlib import Path

from crosslingual.cli.verbs import run_verb
from crosslingual.features.compute import write_features
from crosslingual.training.processes import start_processes
from template.config import FeaturesSettings
from template.data import RESOLUTION, frozen_parts, key_map


def features(settings: FeaturesSettings) -> Path:
    """Writes the features of `shards` to `features_dir`; a second run goes on where the first one
    stopped.
    """
    ranks = start_processes()
    return write_features(
        frozen_parts(settings, ranks.device),
        settings.shards,
        settings.features_dir,
        ranks=ranks,
        resolution=RESOLUTION,
        batch_size=settings.encode_batch_size,
        num_workers=settings.dataloader_num_workers,
        key_map=key_map(settings),
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of `template features` and `python -m template.features`."""
    return run_verb("template features", FeaturesSettings, features, argv)


if __name__ == "__main__":
    sys.exit(main())
