"""`mulan features`: shards through the frozen parts, once.

mulan features --config configs/testbed.yaml --shards data/shards --features_dir data/features
torchrun --nproc_per_node 8 -m mulan.features ...      # ranks share the blocks
"""

import sys
from pathlib import Path

from crosslingual.cli.verbs import run_verb
from crosslingual.features.compute import write_features
from crosslingual.training.processes import start_processes
from mulan.config import FeaturesSettings
from mulan.data import frozen_parts, key_map, picture_size
from mulan.info import check_alignment


def features(settings: FeaturesSettings) -> Path:
    """Writes the features of `shards` to `features_dir`; a second run goes on where the first one
    stopped.
    """
    check_alignment(settings)
    ranks = start_processes()
    return write_features(
        frozen_parts(settings, ranks.device),
        settings.shards,
        settings.features_dir,
        ranks=ranks,
        resolution=picture_size(settings),
        batch_size=settings.encode_batch_size,
        num_workers=settings.dataloader_num_workers,
        key_map=key_map(settings),
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan features` and `python -m mulan.features`."""
    return run_verb("mulan features", FeaturesSettings, features, argv)


if __name__ == "__main__":
    sys.exit(main())
