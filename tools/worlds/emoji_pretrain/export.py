"""Writes the pretrained parts as fp16 folders that stock pipelines load: `sd` and `clip`."""

import copy
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

MAX_BYTES = 40 * 2**20


def export(
    pipe: StableDiffusionPipeline, clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path
) -> None:
    """Writes `folder`/sd and `folder`/clip.

    Raises:
        RuntimeError: together they are larger than 40 MiB.
    """
    shutil.rmtree(folder, ignore_errors=True)
    copy.deepcopy(pipe).to(torch.float16).save_pretrained(folder / "sd")
    copy.deepcopy(clip).half().save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    half = [0.5, 0.5, 0.5]
    processor = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size=64, image_mean=half, image_std=half
    )
    processor.save_pretrained(folder / "clip")
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {total / 2**20:.1f} MiB", flush=True)
    if total > MAX_BYTES:
        raise RuntimeError(f"the models are larger than {MAX_BYTES >> 20} MiB together")
