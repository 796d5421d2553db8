"""What serving costs: milliseconds of prompts and pictures in fp32, bf16 and int8, and memory.

    python benchmarks/perf/run.py serving --pipelines pea=runs/pea/adapter \\
        --embedders mclip=runs/mclip/model altdiffusion=runs/text/altclip
    python benchmarks/perf/run.py serving --shapes FacebookAI/xlm-roberta-base --num_rounds 1

A pipeline or an embedder is what a method exported; a shape is an encoder of that published size
with random weights, which reads 77 tokens. Each precision has a process of its own with one thread;
those of one export take turns. Milliseconds are of CPU, so that they hold on a machine with other
work, and the median of the rounds. bf16 casts the whole pipeline. int8 is torchao's, of the linear
layers on the text side: `weights` multiplies in fp32, `dynamic` rounds the activations too. An arm
that fails is named with its error. Pictures of the testbed's test prompts in German are judged: the
share that shows all that its prompt says.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from cases import peak_mib
from crosslingual.frozen.encoders import MultilingualEncoder, encoder_config, encoder_of
from crosslingual.frozen.weights import freeze, open_tokenizer
from crosslingual.worlds import find_world
from crosslingual_benchmarks.methods import find_method

INT8 = {
    "int8 weights": "Int8WeightOnlyConfig",
    "int8 dynamic": "Int8DynamicActivationInt8WeightConfig",
}
Prompts = dict[str, Any]  # scenes by the prompts that ask for them
PRECISIONS = ("fp32", "bf16", *INT8)
IMPORTED = [  # once, by the process that the arms are forked from
    "crosslingual.adapter.pipeline",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "torchao.quantization",
    "transformers.models.altclip.modeling_altclip",
    "transformers.models.clip.modeling_clip",
    "transformers.models.xlm_roberta.modeling_xlm_roberta",
]


@dataclass(frozen=True)
class Served:
    """What a process serves.

    Attributes:
        text: the models of the text side; of an embedder, those that read pictures too.
        others: a pipeline's denoiser and VAE.
        encode: the states (B, L, D) or rows (B, D) of prompts.
        draw: pictures of 20 steps with guidance; None where there is no pipeline.
    """

    text: list[nn.Module]
    others: list[nn.Module]
    encode: Callable[[list[str]], Tensor]
    draw: Callable[[list[str]], Any] | None = None


def open_pipeline(method: str, path: str) -> Served:
    """An export's pipeline, of a base of the family `sd`."""
    pipe = find_method(method).load_pipeline(path, None)

    def draw(texts: list[str]) -> Any:
        noise = [torch.Generator().manual_seed(number) for number in range(len(texts))]
        return pipe(texts, generator=noise, num_inference_steps=20, guidance_scale=3.0).images

    def encode(texts: list[str]) -> Tensor:
        options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        return pipe.encode_prompt(texts, device=pipe.device, **options)[0]

    return Served([pipe.text_encoder], [pipe.unet, pipe.vae], encode, draw)


def open_embedder(method: str, path: str) -> Served:
    """An export's embedder."""
    embedder = find_method(method).load_embedder(path)
    parts = [getattr(part, "model", part) for part in vars(embedder).values()]
    return Served([part for part in parts if isinstance(part, nn.Module)], [], embedder.embed_text)


def open_shape(name: str, _: str) -> Served:
    """A published encoder's shape with random weights, the same in each process."""
    torch.manual_seed(0)
    model = freeze(encoder_of(encoder_config(name)))
    encoder = MultilingualEncoder(name, model, open_tokenizer("testbed:xlm-r"), 77)
    return Served([model], [], lambda texts: encoder.encode(texts)[0])


OPEN = {"pipelines": open_pipeline, "embedders": open_embedder, "shapes": open_shape}
served: Served  # in the process of an arm


def start(kind: str, name: str, path: str, precision: str, prompts: Prompts) -> dict[str, Any]:
    """Loads and converts what an arm serves; returns the prompts' states, the share of pictures
    that are right, and sizes in MiB.
    """
    global served
    torch.set_num_threads(1)
    imported = peak_mib()
    served = OPEN[kind](name, path)
    if precision == "bf16":
        for module in (*served.text, *served.others):
            nn.Module.to(module, torch.bfloat16)  # past the libraries' own, which warn
    elif precision in INT8:
        from torchao import quantization

        for module in served.text:
            if isinstance(module, PreTrainedModel):  # mCLIP's projectors read their weights
                quantization.quantize_(module, getattr(quantization, INT8[precision])())
    tensors = [tensor for module in served.text for tensor in module.state_dict().values()]
    weights = sum(num_bytes(tensor) for tensor in tensors) / 2**20
    texts = list(prompts)
    states = served.encode(texts).float().numpy()
    found = {"states": states, "weights": weights, "imported": imported}
    if served.draw is not None:
        pictures = [p for i in range(0, len(texts), 8) for p in served.draw(texts[i : i + 8])]
        shows = find_world("testbed").evaluation.shows
        right = [
            shows(picture, prompts[text]) for picture, text in zip(pictures, texts, strict=True)
        ]
        found["right"] = sum(right) / len(right)
    return found


def num_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor, or of what a quantised one consists of."""
    if is_traceable_wrapper_subclass(tensor):
        return sum(num_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes


def take_turn(texts: list[str], num_prompts: list[int], num_pictures: list[int]) -> list[float]:
    """Milliseconds of each batch of prompts, and then of pictures."""
    found = [median_ms(served.encode, texts[:size]) for size in num_prompts]
    if served.draw is None:
        return found
    return found + [median_ms(served.draw, texts[:size]) for size in num_pictures]


def median_ms(call: Callable[[list[str]], Any], texts: list[str], seconds: float = 0.3) -> float:
    """CPU milliseconds of a call, the median of as many as fit into `seconds`, at least one."""
    spent: list[float] = []
    while sum(spent) < seconds:
        started = time.process_time()
        call(texts)
        spent.append(time.process_time() - started)
    return 1e3 * statistics.median(spent)


def memory() -> tuple[float, float]:
    """MiB that a process holds between requests, and the most that it held (Linux)."""
    line = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) / 1024, peak_mib()


@dataclass
class Arm:
    """A precision's process, what it started with, and the milliseconds of its rounds."""

    pool: ProcessPoolExecutor
    started: Future
    rounds: list[list[float]] = field(default_factory=list)

    def row(self, reference: np.ndarray) -> list[str]:
        """Its cells: sizes, the states' largest difference from the reference, milliseconds."""
        found = self.started.result()
        held, most = (mib - found["imported"] for mib in self.pool.submit(memory).result())
        largest = np.abs(found["states"] - reference).max() / np.sqrt((reference**2).mean())
        right = f"{found['right']:.2f}" if "right" in found else ""
        cells = [f"{found['weights']:.1f}", f"{held:.0f}", f"{most:.0f}", f"{largest:.3f}", right]
        return cells + [f"{statistics.median(each):.1f}" for each in zip(*self.rounds, strict=True)]


def measure(kind: str, name: str, path: str, options: argparse.Namespace) -> None:
    """Prints a row of Markdown a precision, or the error of one that does not work."""
    world, count = find_world("testbed").evaluation, max(options.num_prompts)
    scenes = world.distinct_scenes("test", count, seed=1)
    prompts = {world.caption(scene, "de"): scene for scene in scenes}
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with ExitStack() as stack:
        arms = {}
        for precision in PRECISIONS:
            pool = stack.enter_context(ProcessPoolExecutor(1, context))
            arms[precision] = Arm(pool, pool.submit(start, kind, name, path, precision, prompts))
        reference = arms["fp32"].started.result()["states"]
        wait([arm.started for arm in arms.values()])
        for number in range(options.num_rounds):
            for place in range(len(arms)):
                arm = arms[PRECISIONS[(number + place) % len(arms)]]
                if arm.started.exception() is None:
                    sizes = options.num_prompts, options.num_pictures
                    arm.rounds.append(arm.pool.submit(take_turn, list(prompts), *sizes).result())
        for precision, arm in arms.items():
            if error := arm.started.exception():
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"{name}, {precision} does not work: {reason}", flush=True)
            else:
                print("|", " | ".join([name, precision, *arm.row(reference)]), "|", flush=True)


def main(argv: Sequence[str]) -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    exports = {"nargs": "+", "default": [], "metavar": "METHOD=FOLDER"}
    parser.add_argument("--pipelines", help="what methods exported for drawing", **exports)
    parser.add_argument("--embedders", help="what methods exported for search", **exports)
    parser.add_argument("--shapes", nargs="+", default=[], metavar="HUB_ID", help="of encoders")
    parser.add_argument("--num_prompts", nargs="+", type=int, default=[1, 8, 32], help="in a batch")
    parser.add_argument("--num_pictures", nargs="+", type=int, default=[1, 4], help="in a batch")
    parser.add_argument("--num_rounds", type=int, default=3)
    options = parser.parse_args(argv)
    columns = ["", "precision", "weights, MiB", "held, MiB", "most, MiB", "largest difference"]
    columns += ["right pictures"]
    columns += [f"prompts x {size}, ms" for size in options.num_prompts]
    columns += [f"pictures x {size}, ms" for size in options.num_pictures]
    print("|", " | ".join(columns), "|\n|", " | ".join("---" for _ in columns), "|", flush=True)
    for kind in OPEN:
        for word in getattr(options, kind):
            measure(kind, *word.partition("=")[::2], options)
