"""Pretrains `emoji:sd` and `emoji:clip`, exports and measures them.

    python tools/worlds/emoji_pretrain --work WORK

The parts, in this order: text tower and VAE, UNet, vision tower, export, measure. All resume from
WORK, so the command may be stopped and started again at any time; what is done costs nothing. One
core is enough.
"""

import argparse
from pathlib import Path

import torch

from clip import train_text, train_vision
from export import export
from measure import measure
from unet import train_unet
from vae import train_vae


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    train_vae(options.work)
    train_text(options.work)
    pipe = train_unet(options.work)
    clip, tokenizer = train_vision(options.work)
    export(pipe, clip, tokenizer, options.work / "export")
    measure(options.work / "export", options.work)


if __name__ == "__main__":
    main()
