"""What retrieval evaluation costs: seconds and memory of Recall@K with five captions a picture.

    python benchmarks/perf/run.py retrieval

25,000 texts against 5,000 pictures, 512 numbers each, fp32, two threads, both ways. Targets: 10 s
and 2 GiB of peak memory. The two products that it cannot do without stand beside it.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cases import peak_mib
from crosslingual.evaluation.retrieval import recall_at_k


def make_embeddings(num_images: int, num_captions: int, width: int) -> tuple[Tensor, Tensor]:
    """Random pictures, and texts that lie near them: R@1 of about a half."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num_images, width, generator=generator)
    texts = images.repeat_interleave(num_captions, dim=0)
    texts.add_(torch.randn(texts.shape, generator=generator), alpha=4.8)
    return images, texts


def seconds(function: Callable[[], object], num_rounds: int) -> tuple[float, float]:
    """The least wall and CPU seconds of a call; the latter hold on a machine with other work."""
    walls, spent = [], []
    for _ in range(num_rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        walls.append(time.perf_counter() - wall)
        spent.append(time.process_time() - cpu)
    return min(walls), min(spent)


def main(argv: Sequence[str]) -> None:
    """Prints seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=5000)
    parser.add_argument("--num_captions", type=int, default=5, help="a picture")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--num_rounds", type=int, default=3)
    parser.add_argument("--num_threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.num_threads)
    images, texts = make_embeddings(options.num_images, options.num_captions, options.width)
    own = torch.arange(options.num_images).repeat_interleave(options.num_captions)
    start_mib = peak_mib()
    recall = recall_at_k(images, texts, own)
    wall, cpu = seconds(lambda: recall_at_k(images, texts, own), options.num_rounds)
    chunks, scores = texts.split(1024), torch.empty(1024, options.num_images)

    def multiply() -> None:
        for chunk in chunks:
            torch.mm(chunk, images.T, out=scores[: len(chunk)])

    _, bare = seconds(multiply, options.num_rounds)
    print(f"{len(texts):,} texts, {len(images):,} pictures, {options.width} numbers each")
    print(f"mean recall {recall.mean_recall:.3f}, {recall.num_ties} ties")
    print(f"{'recall_at_k, both ways':36} {wall:7.2f} s  (target <= 10 s), {cpu:.2f} s of CPU")
    print(f"{'  over two bare products, by CPU':36} {cpu / (2 * bare):7.2f} x")
    print(f"{'  peak memory, with torch itself':36} {peak_mib():7.0f} MiB  (target <= 2,048 MiB)")
    print(f"{'  of it for the evaluation':36} {peak_mib() - start_mib:7.0f} MiB")
