"""MuLan's training step with image alignment against the bare floor.

- train: `mulan train --alignment image` from features.
- floor: one forward of the UNet, gradient to as many text states as the adapter gives; nothing
  else.
"""

from collections.abc import Mapping

import torch

from cases import Arm, Case, Ratio, Setup, Step, random_batch

NUM_QUERIES = 32


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Writes shards and features, with English captions."""
    shards, features = setup.write_shards(["en"]), setup.folder / "features"
    common = {"alignment": "image", "text_encoder": setup.text_encoder, "languages": ["en"]}
    setup.run("mulan features", shards=shards, features_dir=features, **common)
    train = setup.train("mulan train", features, num_queries=NUM_QUERIES, **common)
    return {"train": train, "floor": floor}


def floor(setup: Setup) -> Step:
    """One forward of the UNet and the gradient to its text states."""
    batch = random_batch(setup, NUM_QUERIES)

    def step() -> None:
        predicted = batch.predict()
        torch.autograd.grad(predicted, batch.states, torch.ones_like(predicted))

    return step


CASE = Case(prepare, [Ratio("time, train / floor", "train", "floor", "<= 1.2")])
