"""mCLIP's second stage: `mclip train` from features against online encoding.

    python benchmarks/perf/run.py mclip --batch_size 16384 --num_steps 4 --num_rounds 1

`features` reads stored outputs of the frozen parts; `online` decodes the pictures and runs both
encoders, each on the drawn captions alone. A large batch holds the activations of 1,024 captions at
a time; its memory should stay below 8 GiB.
"""

from collections.abc import Mapping

from cases import Arm, Case, Ratio, Setup


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Writes shards and features of English captions, two batches of them."""
    num_samples = 2 * setup.batch_size
    shards = setup.write_shards(["en"], num_samples=num_samples, distinct=True)
    features = setup.folder / "features"
    common = {"text_encoder": setup.text_encoder, "languages": ["en"]}
    setup.run("mclip features", shards=shards, features_dir=features, **common)
    common |= {"num_heads": 4}
    if setup.batch_size > 1024:
        common["embed_batch_size"] = 1024
    arms = {"features": features, "online": shards}
    return {name: setup.train("mclip train", data, **common) for name, data in arms.items()}


CASE = Case(
    prepare,
    [Ratio("samples/s, features / online", "online", "features", ">= 8")],
    batch_size=256,
)
