"""IAP's training step: the local branch against the full one, every arm by `iap train`.

- full: the English caption and the target caption through the whole UNet, gradient through it.
- local: the English pass at every step; of the target's, keys, values and attention alone.
- kept: local, with the English pass's queries read from the features (`english_draws: 1`).
- text: text-space MSE, without a UNet: the cost of the encoder itself.
"""

from collections.abc import Mapping

from cases import Arm, Case, Ratio, Setup

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
    return {
        name: setup.train("iap train", features, **zh, **{"english_draws": 0, **changes})
        for name, changes in ARMS.items()
    }


CASE = Case(
    prepare,
    [
        Ratio("samples/s, kept / full", "full", "kept", ">= 3"),
        Ratio("samples/s, local / full", "full", "local"),
        Ratio("time, kept / text", "kept", "text"),
    ],
    batch_size=32,
)
