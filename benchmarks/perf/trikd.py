"""mCLIP's second stage: training from features against online encoding, and a batch of 16,384.

    pip install -e methods/mclip
    python benchmarks/perf/trikd.py                  # testbed's shapes
    python benchmarks/perf/trikd.py --shape base     # ViT-B/32 and XLM-R base, random weights
    python benchmarks/perf/trikd.py --large_batch 16384 --shape base

Both arms are `mclip train`'s own step, one process, one thread, taking turns; a ratio is the median
of the rounds' ratios. `features` reads stored outputs of the frozen parts; `online` decodes the
pictures and runs both encoders, each on the drawn captions alone. At `--shape base` the pictures
are JPEG files of 640 x 480, the captions those of the picture world (some 11 tokens).

`--large_batch N` trains steps of N samples from drawn features of the shape, with the published
X-projector, holding the activations of 1,024 captions at a time, and prints seconds and peak
memory. Targets: features at least 10x online on the testbed; 16,384 below 8 GiB.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from arms.measuring import peak_memory, timed
from loader import photographs
from mclip.config import TrainSettings

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.features.compute import compute_features
from crosslingual.features.loader import finish_features
from crosslingual.frozen.published_shapes import published_shape
from crosslingual.frozen.weights import resolve
from crosslingual.training.engine import start_processes
from crosslingual.training.processes import Ranks
from crosslingual_worlds.drawn.source import world
from mclip.data import frozen_parts, open_data
from mclip.info import projector_shape
from mclip.method import TriKD, trikd_loss
from mclip.train import batch_loss, build_training

CLIP, ENCODER = "openai/clip-vit-base-patch32", "FacebookAI/xlm-roberta-base"
PUBLISHED = {"num_heads": 12, "ffn_width": 3072}
Step = Callable[[], object]


def write_random_models(folder: Path) -> dict[str, str]:
    """A CLIP and an XLM-R of published shape with random weights and the testbed's tokenizers."""
    clip, encoder = folder / "clip", folder / "encoder"
    testbed = Path(resolve("testbed:clip"))
    text = json.loads((testbed / "config.json").read_text())["text_config"]
    config = transformers.CLIPConfig(**published_shape(CLIP, "clip"))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, text[name])
    transformers.CLIPModel(config).save_pretrained(clip)
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 224})
    processor.save_pretrained(clip)
    transformers.AutoTokenizer.from_pretrained(testbed, model_max_length=77).save_pretrained(clip)
    config = transformers.XLMRobertaConfig(**published_shape(ENCODER, "encoder"))
    transformers.XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(encoder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        resolve("testbed:xlm-r"), model_max_length=512
    )
    tokenizer.save_pretrained(encoder)
    return {"clip": str(clip), "text_encoder": str(encoder)}


def photographed_world(num_samples: int) -> Iterator[Record]:
    """Photograph-like pictures of 640 x 480 under the picture world's captions."""
    captions = world(languages=["en"], num_samples=num_samples, distinct=True, pictures=False)
    pictures = photographs(num_samples, 640, 480)
    for record, picture in zip(captions, pictures, strict=True):
        yield replace(record, image=picture.image)


def prepare(folder: Path, shape: str, batch_size: int) -> dict[str, TrainSettings]:
    """Shards and features, and the settings of a run on each."""
    settings = TrainSettings(languages=["en"], train_batch_size=batch_size, num_heads=4)
    records = world(languages=["en"], num_samples=2 * batch_size, distinct=True)
    if shape == "base":
        models = write_random_models(folder)
        settings = replace(settings, resolution=248, max_length=77, **models, **PUBLISHED)
        records = photographed_world(2 * batch_size)
    shards, features = folder / "shards", folder / "features"
    write_shards(records, shards)
    parts = frozen_parts(settings, torch.device("cpu"))
    compute_features(parts, str(shards), features, resolution=settings.resolution)
    finish_features(features)
    places = {"features": features, "online": shards}
    return {name: replace(settings, train_data=str(place)) for name, place in places.items()}


def training_step(settings: TrainSettings, ranks: Ranks) -> Step:
    """The step of `mclip train` without its log."""
    batches = open_data(settings, ranks).batches(0)
    config = projector_shape(settings)
    engine = build_training(settings, config)

    def step() -> None:
        loss, _ = batch_loss(engine, next(batches), settings, ranks.device)
        engine.backward(loss)
        engine.step()

    return step


def compare(folder: Path, shape: str, batch_size: int, num_rounds: int) -> None:
    """Times both arms in turns and prints their ratio."""
    ranks = start_processes()
    arms = prepare(folder, shape, batch_size)
    steps = {name: training_step(settings, ranks) for name, settings in arms.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(num_rounds + 1):
        for name, step in steps.items():
            measured = timed(step)
            if number:  # the first round fills caches
                times[name].append(measured)
    for name, rounds in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:9} {wall * 1e3:9.1f} ms  {cpu * 1e3:9.1f} ms of CPU", end="  ")
        print(f"{batch_size / wall:8.1f} samples/s")
    wall, cpu = (
        statistics.median(
            o[i] / f[i] for o, f in zip(times["online"], times["features"], strict=True)
        )
        for i in (0, 1)
    )
    target = "target 10" if shape == "testbed" else "no target"
    print(f"samples/s, features / online: {wall:.1f}  by CPU time {cpu:.1f}  ({target})")


def train_large_batch(shape: str, batch_size: int, num_steps: int) -> None:
    """Steps of one large batch of drawn features of the shape; prints seconds and peak memory."""
    names = {"clip": CLIP, "text_encoder": ENCODER} if shape == "base" else {}
    settings = TrainSettings(**names, **PUBLISHED, languages=["en"], embed_batch_size=1024)
    model_shape = projector_shape(settings)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 17, (batch_size,), generator=generator)
    num_tokens, width = int(lengths.sum()), model_shape["width"]
    states = torch.randn(num_tokens, width, generator=generator).half()
    images = torch.randn(batch_size, model_shape["clip_width"], generator=generator)
    module = TriKD(model_shape)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    is_english = torch.ones(batch_size, dtype=torch.bool)
    for number in range(num_steps):
        started = time.perf_counter()
        pictures, texts, captions, scale = module(
            images, images, states.float(), lengths, settings.embed_batch_size
        )
        loss, _ = trikd_loss(captions, pictures, texts, is_english, scale)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - started
        print(
            f"batch {batch_size:,}, width {width}, {num_tokens:,} tokens, step {number + 1}: "
            f"loss {loss.item():.3f}, {seconds:.1f} s, peak {peak_memory() / 1024:.2f} GiB "
            "(target < 8)",
            flush=True,
        )


def main() -> None:
    """Compares the arms, or trains one large batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=["testbed", "base"], default="testbed")
    parser.add_argument("--batch_size", type=int, help="256 on the testbed, 32 at base's shape")
    parser.add_argument("--num_rounds", type=int, help="10 on the testbed, 3 at base's shape")
    parser.add_argument("--large_batch", type=int, help="train steps of so many samples instead")
    parser.add_argument("--num_steps", type=int, default=2, help="of the large batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.large_batch:
        train_large_batch(options.shape, options.large_batch, options.num_steps)
        return
    is_small = options.shape == "testbed"
    batch_size = options.batch_size or (256 if is_small else 32)
    with tempfile.TemporaryDirectory() as folder:
        num_rounds = options.num_rounds or (10 if is_small else 3)
        compare(Path(folder), options.shape, batch_size, num_rounds)


if __name__ == "__main__":
    main()
