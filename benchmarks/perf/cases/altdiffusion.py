"""AltDiffusion's concept alignment against its floor and against online encoding.

    python tools/random_base.py write --shape sd15 --output_dir /tmp/sd15          # real shapes
    python benchmarks/perf/run.py altdiffusion --base /tmp/sd15/base \\
        --text_encoder /tmp/sd15/encoder --resolution 256 --batch_size 1 --num_steps 4

- floor: the UNet's forward and backward pass with gradients for keys and values of cross-attention.
- train: `altdiffusion train` from features.
- online: the same from shards: pictures pass the VAE, captions that are drawn the text encoder.
- whole: the same as train, with gradients for the whole UNet, as quality improvement has them.
"""

from collections.abc import Mapping

import torch
from transformers import AutoTokenizer

from cases import Arm, Case, Ratio, Setup, Step, random_batch
from crosslingual.frozen.base import Base
from crosslingual.frozen.weights import resolve
from crosslingual_benchmarks.baselines.full_finetuning import build_text_encoder

LANGUAGES = ["en", "de", "fr", "ja", "zh"]
VERB = "altdiffusion train"


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Writes an untrained text encoder, shards and features."""
    shards, features = setup.write_shards(LANGUAGES), setup.folder / "features"
    base = {"pretrained_model_name_or_path": setup.base}
    student = setup.folder / "student"
    width = Base.open(setup.base).text.width
    build_text_encoder(setup.text_encoder, width).save_pretrained(student)
    AutoTokenizer.from_pretrained(
        resolve(setup.text_encoder), trust_remote_code=False
    ).save_pretrained(student)
    common = {"text_encoder": student, "languages": LANGUAGES, **base}
    common["resolution"] = setup.resolution
    setup.run("altdiffusion features", shards=shards, features_dir=features, **common)
    whole = {"stage": "quality_improvement"}
    return {
        "floor": floor,
        "train": setup.train(VERB, features, **common),
        "online": setup.train(VERB, shards, **common),
        "whole": setup.train(VERB, features, **common, **whole),
    }


def floor(setup: Setup) -> Step:
    """The UNet forward and backward, gradients for keys and values alone."""
    batch = random_batch(setup)
    trainable = [
        weight.requires_grad_()
        for name, weight in batch.unet.named_parameters()
        if "attn2.to_k" in name or "attn2.to_v" in name
    ]

    def step() -> None:
        predicted = batch.unet(batch.latents, batch.timesteps, batch.states.detach()).sample
        torch.autograd.grad(predicted, trainable, torch.ones_like(predicted))

    return step


CASE = Case(
    prepare,
    [
        Ratio("time, train / floor", "train", "floor", "<= 1.25"),
        Ratio("samples/s, train / online", "online", "train", ">= 1.5"),
        Ratio("time, whole UNet / keys and values", "whole", "train"),
    ],
    batch_size=32,
)
