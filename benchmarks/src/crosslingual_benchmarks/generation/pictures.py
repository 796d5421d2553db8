"""Pictures of prompts on disk, in GenEval's layout, so that an interrupted run resumes:

FOLDER/settings.json                what all its pictures were made with
FOLDER/00000/metadata.jsonl         the prompt, its seed, whether it was cut, and whether the
                                    picture is finite
FOLDER/00000/samples/0000.png

A picture is kept if it was made with the same settings from the same prompt and can be decoded.
Metadata is written last and removed first, so that it never describes another picture.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crosslingual.data.pictures import open_picture
from crosslingual.data.text import dump_json
from crosslingual.files import read_fields, replacing, write_json, write_text
from crosslingual.frozen.tokens import Cut, on_cut, report_cut

SETTINGS, METADATA, SAMPLE = "settings.json", "metadata.jsonl", "samples/0000.png"
SEED_STEP = 1_000_003  # a prime above any number of prompts: no two seeds share a picture's noise


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled."""

    num_inference_steps: int
    guidance_scale: float
    resolution: int
    seed: int


@dataclass(frozen=True)
class Request:
    """A picture to make.

    Its number and the seed decide the noise; `id` is the prompt's own name.
    """

    number: int
    id: str
    prompt: str


@dataclass(frozen=True)
class Drawn:
    """A picture that was made.

    Attributes:
        request: what was asked for.
        path: of the PNG.
        is_finite: false where the pipeline's output held a NaN or an infinity; the picture is black
            then, as diffusers shows it.
        is_cut: whether the pipeline read only a part of the prompt.
        is_kept: whether an earlier run made it.
    """

    request: Request
    path: Path
    is_finite: bool
    is_cut: bool
    is_kept: bool

    def open(self) -> Image.Image:
        """The picture, RGB."""
        return open_picture(self.path.read_bytes())


def draw_pictures(
    folder: str | Path,
    requests: Sequence[Request],
    make_pipeline: Callable[[], Any],
    sampling: Sampling,
    *,
    made_with: Mapping[str, Any],
    batch_size: int = 16,
    title: str = "",
) -> list[Drawn]:
    """Makes the pictures that the folder lacks; returns one for each request, in order.

    The noise of a picture depends on the seed and its number alone, not on the batch, the language
    or the pictures of earlier runs.

    `make_pipeline` is called if anything is missing; its pipeline is called as diffusers' are, with
    `output_type="np"`. `made_with` holds what else decides the pictures, such as the weights, as
    JSON values.

    Raises:
        ValueError: the folder holds pictures of other settings or prompts.
    """
    from tqdm import tqdm

    folder = Path(folder)
    _guard(folder, {**vars(sampling), **made_with})
    drawn = {request.number: _kept(folder, request, sampling) for request in requests}
    missing = [request for request in requests if drawn[request.number] is None]
    # on a terminal a bar that moves, elsewhere a line now and then
    is_terminal = sys.stderr.isatty()
    with tqdm(
        total=len(requests),
        initial=len(requests) - len(missing),
        desc=title or None,
        unit=" pictures",
        mininterval=0.1 if is_terminal else 10.0,
        delay=0 if is_terminal else 10.0,
        dynamic_ncols=is_terminal,
        leave=False,
        disable=not missing,
    ) as bar:
        pipe = make_pipeline() if missing else None
        for start in range(0, len(missing), batch_size):
            part = missing[start : start + batch_size]
            cuts: list[Cut] = []
            with on_cut(cuts.append), report_cut(pipe):
                images = _sample(pipe, part, sampling)
            cut = {each.text for each in cuts}
            for request, pixels in zip(part, images, strict=True):
                is_cut = request.prompt in cut
                drawn[request.number] = _write(folder, request, pixels, is_cut, sampling)
            bar.update(len(part))
    return [drawn[request.number] for request in requests]


def _sample(pipe: Any, requests: Sequence[Request], sampling: Sampling) -> np.ndarray:
    """(B, H, W, 3) in [0, 1], of a batch."""
    import torch

    from crosslingual.frozen.families import call_options

    seeds = [sampling.seed * SEED_STEP + request.number for request in requests]
    return pipe(
        [request.prompt for request in requests],
        height=sampling.resolution,
        width=sampling.resolution,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
        **call_options(pipe),
    ).images


def _guard(folder: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder of other settings, and writes them into a new one."""
    path = folder / SETTINGS
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} holds files but no {SETTINGS}, which would say how its pictures were "
                "made; give another --output_dir, or remove it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    found = read_fields(path, {}, f"remove {folder}, or give another --output_dir")
    wanted = json.loads(json.dumps(settings))
    names = [k for k in sorted({*found, *wanted}) if found.get(k) != wanted.get(k)]
    if names:
        told = ", ".join(f"{name} {found.get(name)!r}, not {wanted.get(name)!r}" for name in names)
        raise ValueError(
            f"{folder} holds pictures made with {told}; give another --output_dir, or remove it"
        )


def _kept(folder: Path, request: Request, sampling: Sampling) -> Drawn | None:
    """The picture of an earlier run, where it is complete; else None."""
    place = folder / f"{request.number:05d}"
    path = place / SAMPLE
    if not path.is_file() or not (place / METADATA).is_file():
        return None
    fields = {"prompt": str, "is_finite": bool, "is_cut": bool | None}
    metadata = read_fields(place / METADATA, fields, f"remove {place} to draw it again")
    if metadata["prompt"] != request.prompt:
        raise ValueError(
            f"{place} is a picture of {metadata['prompt']!r}, not of {request.prompt!r}: the "
            "prompts have changed; give another --output_dir, or remove the folder"
        )
    try:
        size = open_picture(path.read_bytes()).size
    except ValueError:
        return None
    is_cut = bool(metadata.get("is_cut"))
    is_whole = size == (sampling.resolution, sampling.resolution)
    return Drawn(request, path, metadata["is_finite"], is_cut, True) if is_whole else None


def _write(
    folder: Path, request: Request, pixels: np.ndarray, is_cut: bool, sampling: Sampling
) -> Drawn:
    """Writes a picture (H, W, 3) and then its metadata, each complete or not at all."""
    if pixels.shape != (sampling.resolution, sampling.resolution, 3):
        raise ValueError(
            f"the pipeline drew {pixels.shape}, not squares of {sampling.resolution} pixels: give "
            "a --resolution that the base can draw"
        )
    is_finite = bool(np.isfinite(pixels).all())
    if not is_finite:
        pixels = np.zeros_like(pixels)
    place = folder / f"{request.number:05d}"
    (place / SAMPLE).parent.mkdir(parents=True, exist_ok=True)
    (place / METADATA).unlink(missing_ok=True)
    with replacing(place / SAMPLE) as partial:
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(partial, "png")
    metadata = {"prompt": request.prompt, "id": request.id, "seed": sampling.seed}
    metadata |= {"number": request.number, "is_finite": is_finite, "is_cut": is_cut}
    write_text(place / METADATA, dump_json(metadata) + "\n")
    return Drawn(request, place / SAMPLE, is_finite, is_cut, False)
