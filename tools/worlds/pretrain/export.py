"""Writes the pretrained parts as model folders, fp16, into the package: `testbed:sd`,
`testbed:clip`, `testbed:xlm-r`.

python tools/worlds/pretrain/export.py --work WORK
"""

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, XLMRobertaTokenizer

from clip import make_clip, make_text_tower, make_tokenizer, make_vision_tower
from crosslingual_worlds.drawn import WEIGHTS
from loop import average_of
from unet import latent_pool, load_vae, make_pipeline, make_unet
from xlm_r import LanguageModel

MAX_BYTES = 25 * 2**20


def export_clip(work: Path, folder: Path) -> None:
    """`testbed:clip`."""
    tokenizer = make_tokenizer(work / "clip_tokenizer")
    clip = make_clip(tokenizer)
    average_of(work / "clip_text.pt", make_text_tower(clip))
    average_of(work / "clip_vision.pt", make_vision_tower(clip))
    clip.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size=64, image_mean=half, image_std=half
    ).save_pretrained(folder)


def export_xlm_r(work: Path, folder: Path) -> None:
    """`testbed:xlm-r`."""
    tokenizer = XLMRobertaTokenizer.from_pretrained(
        work / "xlm_r_tokenizer", trust_remote_code=False
    )
    model = LanguageModel(len(tokenizer))
    average_of(work / "xlm_r.pt", model)
    model.encoder.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.copy(work / "xlm_r_tokenizer" / "sentencepiece.bpe.model", folder)


def export_sd(work: Path, folder: Path) -> None:
    """`testbed:sd`."""
    unet, vae = make_unet(), load_vae(work)
    average_of(work / "unet.pt", unet)
    _, _, factor = latent_pool(work, vae)
    make_pipeline(work, unet, vae, factor).to(torch.float16).save_pretrained(folder)


def size_of(parts: Iterable[str]) -> int:
    """Bytes of these models' folders."""
    files = [path for part in parts for path in (WEIGHTS / part).rglob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--parts", nargs="*", default=["clip", "xlm-r", "sd"], choices=["clip", "xlm-r", "sd"]
    )
    options = parser.parse_args()
    writers = {"clip": export_clip, "xlm-r": export_xlm_r, "sd": export_sd}
    for part in options.parts:
        shutil.rmtree(WEIGHTS / part, ignore_errors=True)
        writers[part](options.work, WEIGHTS / part)
    total = size_of(writers)
    print(f"{WEIGHTS}: {total / 2**20:.1f} MiB")
    if total > MAX_BYTES:
        raise SystemExit("the embedded models are larger than 25 MiB together")


if __name__ == "__main__":
    main()
