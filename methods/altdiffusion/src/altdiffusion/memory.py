"""`altdiffusion memory`: memory a GPU of each stage and ZeRO level, from shapes alone.

altdiffusion memory --configs configs/m9_sd15_*.yaml configs/m18_sd21_*.yaml --output MEMORY.md

What is counted, in bytes: weights in fp32 (4 a parameter, frozen or not), gradients (4), AdamW's
moments (8), DeepSpeed's own fp32 copy at ZeRO 1-3 (4), bf16 copies that autocast keeps of what
trains (2), EMA (4), and what the forward pass keeps for the backward pass. Not counted: the CUDA
context, workspaces of kernels, communication buckets (set in ds/*.json), fragmentation, norms that
autocast keeps in fp32, and at ZeRO 3 the layers that are gathered at a time.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from altdiffusion.config import MemorySettings, TrainSettings
from altdiffusion.config_text import TrainTextSettings
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb

GIB = 2**30
LEVELS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Estimate:
    """Sizes of a run on one GPU.

    Attributes:
        trainable, frozen: parameters that the process holds.
        activations: bytes kept for the backward pass by a micro-step.
        is_bf16: autocast keeps bf16 copies.
        has_ema: whether a moving average is kept.
    """

    trainable: int
    frozen: int
    activations: int
    is_bf16: bool
    has_ema: bool

    def states(self, level: int, num_gpus: int) -> float:
        """Bytes a GPU of weights, gradients, optimiser and copies at a ZeRO level."""
        shared = 1 / num_gpus
        weights = 4 * (self.trainable + self.frozen) * (shared if level == 3 else 1)
        gradients = 4 * self.trainable * (shared if level >= 2 else 1)
        moments = 8 * self.trainable * (shared if level >= 1 else 1)
        master = 4 * self.trainable * shared if level >= 1 else 0
        copies = (2 * self.is_bf16 + 4 * (self.has_ema and level < 3)) * self.trainable
        return weights + gradients + moments + master + copies

    def total(self, level: int, num_gpus: int) -> float:
        """Bytes a GPU in all."""
        return self.states(level, num_gpus) + self.activations


def estimate_unet(settings: TrainSettings) -> Estimate:
    """Of a stage of the UNet, trained from features."""
    import torch
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    from altdiffusion.activations import kept_bytes
    from altdiffusion.info import count, unet_on_meta
    from altdiffusion.unet import unet_config

    is_bf16 = settings.mixed_precision == "bf16"
    unet, config = unet_on_meta(settings), unet_config(settings)
    trainable, total = count(unet)
    unet = _in_bf16(unet).train() if is_bf16 else unet.train()
    rows, edge = settings.train_batch_size, settings.resolution // 8
    with torch.device("meta"):
        latents = torch.empty(rows, config["in_channels"], edge, edge, dtype=unet.dtype)
        times = torch.empty(rows, dtype=torch.int64)
        length, width = settings.max_length or 77, config["cross_attention_dim"]
        states = torch.empty(rows, length, width, dtype=unet.dtype)
    blocks = (BasicTransformerBlock, ResnetBlock2D)
    kept, largest = kept_bytes(unet, lambda: unet(latents, times, states).sample, blocks)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        kept = kept_bytes(unet, lambda: unet(latents, times, states).sample)[0] + largest
    return Estimate(trainable, total - trainable, kept, is_bf16, settings.use_ema)


def estimate_text(settings: TrainTextSettings) -> Estimate:
    """Of teacher learning, whose targets are cached: the student alone is held."""
    import torch
    from transformers import AltCLIPTextConfig, AltCLIPTextModel
    from transformers.models.altclip.modeling_altclip import AltRobertaLayer

    from altdiffusion.activations import kept_bytes
    from altdiffusion.text_encoder import student_shape
    from crosslingual.frozen.clip import clip_config

    width = clip_config(settings.teacher, settings.teacher_revision).text_config.hidden_size
    shape = student_shape(settings.text_encoder, settings.text_encoder_revision)
    is_bf16 = settings.mixed_precision == "bf16"
    with torch.device("meta"):
        student = AltCLIPTextModel(AltCLIPTextConfig(**shape, project_dim=width))
        student = student.to(torch.bfloat16 if is_bf16 else torch.float32).train()
        length = settings.max_length or min(77, shape["max_position_embeddings"] - 2)
        ids = torch.empty(settings.train_batch_size, length, dtype=torch.int64)

    def forward() -> Any:
        return student(ids).pooler_output

    kept, largest = kept_bytes(student, forward, (AltRobertaLayer,))
    if settings.gradient_checkpointing:
        student.activation_checkpointing_enable()
        kept = kept_bytes(student, forward)[0] + largest
    trainable = sum(parameter.numel() for parameter in student.parameters())
    return Estimate(trainable, 0, kept, is_bf16, False)


def _in_bf16(unet: Any) -> Any:
    """Past diffusers' own `to`, which warns of layers to keep in fp32 where there are none."""
    import torch

    return torch.nn.Module.to(unet, torch.bfloat16)


def read_estimate(config: str) -> tuple[str, Estimate]:
    """A config's line about itself and its estimate.

    Raises:
        FileNotFoundError: there is no such config.
    """
    path = Path(config)
    if not path.is_file():
        raise FileNotFoundError(f"no config file {config}; give existing YAML files")
    words, prog = ["--config", config], "altdiffusion memory"
    if "teacher" in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
        text = parse_settings(TrainTextSettings, words, prog=prog)
        head = f"{text.stage}, {text.train_batch_size} sentences a GPU"
        found, settings = estimate_text(text), text
    else:
        settings = parse_settings(TrainSettings, words, prog=prog)
        found = estimate_unet(settings)
        head = f"{settings.stage}, {settings.train_batch_size} x {settings.resolution} px a GPU"
    head += ", gradient checkpointing" if settings.gradient_checkpointing else ""
    return f"{head}, {'bf16' if found.is_bf16 else 'fp32'}", found


def render(config: str, num_gpus: list[int]) -> str:
    """A config's table in Markdown, GiB a GPU."""
    head, found = read_estimate(config)
    lines = [
        f"## {Path(config).stem}",
        "",
        f"{head}: {found.trainable:,} parameters train, {found.frozen:,} are frozen; activations "
        f"{found.activations / GIB:.1f} GiB" + (", EMA" if found.has_ema else ""),
        "",
        "| GPUs | " + " | ".join(f"ZeRO {level}" for level in LEVELS) + " |",
        "|---:|" + "---:|" * len(LEVELS),
    ]
    for number in num_gpus:
        cells = (f"{found.total(level, number) / GIB:.1f}" for level in LEVELS)
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def memory(settings: MemorySettings) -> str:
    """Prints the tables, or writes them to a page."""
    if not settings.configs:
        raise ValueError("configs is empty: name YAML files of train and train-text")
    tables = "\n".join(render(config, settings.num_gpus) for config in settings.configs)
    if settings.output is None:
        print(tables)
        return tables
    said = __doc__.split("\n\n", 2)[2].replace("\n", " ").strip()
    command = f"altdiffusion memory --configs {' '.join(settings.configs)} --output MEMORY.md"
    page = f"# Memory a GPU, in GiB\n\nWritten by\n\n```bash\n{command}\n```\n\n{said}\n\n{tables}"
    Path(settings.output).write_text(page, encoding="utf-8")
    print(settings.output)
    return page


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion memory`."""
    return run_verb("altdiffusion memory", MemorySettings, memory, argv)


if __name__ == "__main__":
    sys.exit(main())
