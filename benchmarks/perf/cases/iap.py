"""IAP's training step: the local branch against the full one, every arm by `iap train`.

- full: the English caption and the target caption through the whole UNet, gradient through it.
- local: the English pass at every step; of the target's, keys, values and attention alone.
- kept: local, with the English pass's queries read from the features (`english_draws: 1`).
- text: text-space MSE, without a UNet: the cost of the encoder itself.
- floor: what local cannot do without: one forward of the UNet, and forward and backward of the
  multilingual encoder on the captions' tokens with the gradients of all its weights.
"""

from collections.abc import Mapping

import torch

from cases import Arm, Case, Ratio, Setup, Step, random_batch
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.worlds import find_world

ARMS = {
    "full": {"branch": "full"},
    "local": {},
    "kept": {"english_draws": 1},
    "text": {"objective": "text"},
}
"""An arm's name to the settings that it changes."""


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Writes shards, and features with the queries of an English pass."""
    shards, features = setup.write_shards(["en", "zh"]), setup.folder / "features"
    zh = {"target_language": ["zh"]}
    setup.run("iap features", shards=shards, features_dir=features, **zh, **ARMS["kept"])
    arms = {
        name: setup.train("iap train", features, **zh, **{"english_draws": 0, **changes})
        for name, changes in ARMS.items()
    }
    return {**arms, "floor": floor}


def floor(setup: Setup) -> Step:
    """One forward of the UNet, then both passes of the encoder."""
    batch, encoder = random_batch(setup), load_multilingual_encoder(setup.text_encoder)
    world = find_world("testbed").sources["world"]
    records = world(languages=["zh"], num_samples=setup.batch_size)
    ids, mask = encoder.tokenize([r.captions["zh"][0] for r in records], padding="longest")
    weights = list(encoder.model.requires_grad_().parameters())

    def step() -> None:
        with torch.no_grad():
            batch.predict()
        states = encoder.model(ids, attention_mask=mask).last_hidden_state
        torch.autograd.grad(states, weights, torch.ones_like(states))

    return step


CASE = Case(
    prepare,
    [
        Ratio("samples/s, kept / full", "full", "kept", ">= 3"),
        Ratio("samples/s, local / full", "full", "local"),
        Ratio("time, kept / text", "kept", "text"),
        Ratio("time, local / floor", "local", "floor", "<= 1.25"),
    ],
    batch_size=32,
)
