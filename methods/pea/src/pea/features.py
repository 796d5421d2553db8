"""`pea features`: shards through the frozen parts, once.

pea features --config configs/testbed.yaml --shards data/shards --features_dir data/features
torchrun --nproc_per_node 8 -m pea.features ...      # ranks share the blocks
"""

import sys
from pathlib import Path

import torch

from crosslingual.feature_pass import compute_features
from crosslingual.features import finish_features
from crosslingual.processes import start_processes
from crosslingual.settings import parse_settings, run_command
from pea.config import FeaturesSettings
from pea.data import frozen_parts, key_map


def features(settings: FeaturesSettings) -> Path:
    """Writes the features of `shards` to `features_dir`; a second run goes on where the first one
    stopped.
    """
    if not (settings.shards and settings.features_dir and settings.languages):
        raise ValueError("pea features needs --shards, --features_dir and --languages")
    ranks = start_processes()
    parts = frozen_parts(settings, ranks.device)
    folder = compute_features(
        parts,
        settings.shards,
        settings.features_dir,
        resolution=settings.resolution,
        batch_size=settings.encode_batch_size,
        num_workers=settings.dataloader_num_workers,
        rank=ranks.rank,
        world_size=ranks.world_size,
        key_map=key_map(settings),
    )
    torch.distributed.barrier()
    if ranks.rank == 0:
        index = finish_features(folder)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(
            f"{folder}: {index.num_rows} samples, {len(index.languages)} languages, {size:.1f} MiB"
        )
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea features` and `python -m pea.features`."""
    words = sys.argv[1:] if argv is None else argv

    def command() -> None:
        features(parse_settings(FeaturesSettings, words, prog="pea features"))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
