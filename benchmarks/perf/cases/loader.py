"""Samples/s of the loader from raw shards against plain webdataset iteration, decoding alike.

    python benchmarks/perf/run.py loader
    python benchmarks/perf/run.py loader --num_photographs 500 --resolution 512

Writes shards of photograph-like JPEGs and of the picture world into a temporary folder and reads
each epoch after epoch, one process, taking turns, so that the ratio is of one run. The loader's
time holds what webdataset does not do: opening, walking the tars, checks, a shuffled order. The
target is a ratio of at least 0.9. CPU time is what to go by while the machine does other work.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image

from crosslingual.data.loader import ShardLoader
from crosslingual.data.pictures import decode_pixels, pixels_to_images
from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.worlds import find_world

BATCH_SIZE = 32


def photographs(count: int, width: int = 800, height: int = 600) -> Iterator[Record]:
    """Pictures with the spectrum of photographs: noise whose amplitude falls with frequency."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / width
    for number in range(count):
        noise = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency
        pixels = np.fft.irfft2(noise, (height, width)).transpose(1, 2, 0)
        pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        yield Record(f"{number:06d}", buffer.getvalue(), {"en": ["a photograph"]}, True)


def read_by_loader(shards: Path, resolution: int) -> int:
    """An epoch by our loader, from its construction on; returns the samples read."""
    loader = ShardLoader(str(shards), batch_size=BATCH_SIZE, seed=0, resolution=resolution)
    return sum(len(batch["images"]) for batch in islice(loader.batches(), len(loader)))


def read_by_webdataset(shards: Path, resolution: int) -> int:
    """An epoch by webdataset's own pipeline; returns the samples read."""

    def decode(sample: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        data = sample["jpg"] if "jpg" in sample else sample["png"]
        return decode_pixels(data, resolution), json.loads(sample["json"])

    def collate(samples: list[tuple[np.ndarray, dict[str, Any]]]) -> torch.Tensor:
        return pixels_to_images(np.stack([pixels for pixels, _ in samples]))

    urls = sorted(str(path) for path in shards.glob("*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).map(decode)
    batches = dataset.batched(BATCH_SIZE, collation_fn=collate, partial=False)
    return sum(len(images) for images in batches)


def time_epoch(
    read: Callable[[Path, int], int], shards: Path, resolution: int
) -> tuple[float, float]:
    """Wall and CPU seconds a sample."""
    wall, cpu = time.perf_counter(), time.process_time()
    num_samples = read(shards, resolution)
    return (time.perf_counter() - wall) / num_samples, (time.process_time() - cpu) / num_samples


def compare(name: str, shards: Path, resolution: int, num_rounds: int) -> None:
    """Prints both speeds and their ratio."""
    rounds = []
    for number in range(num_rounds + 1):
        readers = [read_by_loader, read_by_webdataset]
        if number % 2:
            readers.reverse()
        times = {read: time_epoch(read, shards, resolution) for read in readers}
        if number > 0:  # the first round fills caches and imports
            rounds.append([*times[read_by_loader], *times[read_by_webdataset]])
    ours, ours_cpu, theirs, theirs_cpu = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    print(
        f"{name:28} loader {1 / ours:7.0f}/s  webdataset {1 / theirs:7.0f}/s  "
        f"ratio {theirs / ours:.2f} (by CPU time {theirs_cpu / ours_cpu:.2f}; target 0.9)",
        flush=True,
    )


def main(argv: Sequence[str]) -> None:
    """Writes the shards and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_photographs", type=int, default=256)
    parser.add_argument("--num_scenes", type=int, default=4096)
    parser.add_argument("--resolution", type=int, default=512, help="of the photographs")
    parser.add_argument("--num_rounds", type=int, default=5)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scenes = find_world("testbed").sources["world"](
            languages=["en", "de", "zh"], num_samples=options.num_scenes
        )
        write_shards(scenes, Path(folder, "world"), samples_per_shard=1024)
        compare("picture world, 64 px", Path(folder, "world"), 64, options.num_rounds)
        pictures = photographs(options.num_photographs)
        write_shards(pictures, Path(folder, "photographs"), samples_per_shard=64)
        name = f"photographs, {options.resolution} px"
        compare(name, Path(folder, "photographs"), options.resolution, options.num_rounds)
