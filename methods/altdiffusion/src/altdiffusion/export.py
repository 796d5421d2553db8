"""A stage's result: the folder of a `StableDiffusionPipeline`, which stock diffusers loads and
runs without this package; and `altdiffusion export`, which writes it of any checkpoint.

Beside diffusers' own files lie `altdiffusion.json` (how it was made), a model card and, of LoRA,
`lora/pytorch_lora_weights.safetensors`, whose weights are in the UNet already.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from altdiffusion.config import ExportSettings, TrainSettings
from altdiffusion.text_encoder import TextEncoder, load_text_encoder
from altdiffusion.unet import trained_unet
from altdiffusion.whole_folder import write_folder
from crosslingual.adapter.artifact import model_card
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.training.processes import Ranks, start_processes

CONFIG = "altdiffusion.json"
VERSION = 1
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CARD = """\
A Stable Diffusion that reads {count} languages: `{base}` with a multilingual student of CLIP's text
encoder and a UNet trained to read it (AltDiffusion, arXiv 2308.09991; last stage: {stage}).

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("this/folder")
pipe("...", guidance_scale={guidance_scale}).images[0]
```
"""


def pipeline_config(settings: TrainSettings) -> dict[str, Any]:
    """What `altdiffusion.json` says."""
    return {
        "format_version": VERSION,
        "method": "altdiffusion",
        "stage": settings.stage,
        "base": settings.pretrained_model_name_or_path,
        "base_revision": settings.revision,
        "languages": settings.languages,
        "resolution": settings.resolution,
        "guidance_scale": settings.guidance_scale,
        "all_attn2": settings.all_attn2,
        "lora_rank": settings.lora_rank,
    }


def build_pipeline(base: str, revision: str | None, unet: Any, encoder: TextEncoder) -> Any:
    """The base's pipeline with another UNet and text encoder.

    Raises:
        ValueError: the base is no plain Stable Diffusion.
    """
    from diffusers import StableDiffusionPipeline

    encoder.model.config.use_attention_mask = True
    encoder.tokenizer.model_max_length = encoder.max_length
    parts = {"unet": unet, "text_encoder": encoder.model, "tokenizer": encoder.tokenizer}
    pipe = load_base(base, revision, **parts)
    if type(pipe) is not StableDiffusionPipeline:
        raise ValueError(f"{base} is a {type(pipe).__name__}; AltDiffusion works on SD 1.x and 2.x")
    return pipe


def save_pipeline(
    folder: Path, pipe: Any, config: dict[str, Any], lora: dict[str, Tensor] | None = None
) -> Path:
    """Writes a pipeline's folder, complete or not at all."""
    card = model_card(
        title="AltDiffusion",
        text=CARD.format(count=len(config["languages"]), **config),
        base_model=config["base"],
        languages=config["languages"],
        pipeline_tag="text-to-image",
        tags=["altdiffusion", "cross-lingual"],
        license="mit",
    )

    def fill(partial: Path) -> None:
        pipe.save_pretrained(partial, safe_serialization=True)
        (partial / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        (partial / "README.md").write_text(card, encoding="utf-8")
        if lora is not None:
            pipe.save_lora_weights(partial / "lora", unet_lora_layers=lora)

    return write_folder(folder, fill)


def write_pipeline(
    engine: Any,
    ema: Any,
    settings: TrainSettings,
    folder: Path,
    ranks: Ranks,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Exports what an engine trained (or its moving average); every process must call it."""
    from crosslingual.training.engine import full_state_dict

    state = full_state_dict(engine)
    if ema is not None:  # beside the engine: ZeRO gathers its own fp32 copy
        shadow = (parameter.cpu() for parameter in ema.shadow_params)
        state = dict(zip(state, shadow, strict=True))
    if ranks.rank == 0:
        unet, lora = trained_unet(settings, state)
        encoder = load_text_encoder(
            settings.text_encoder, settings.text_encoder_revision, settings.max_length
        )
        base, revision = settings.pretrained_model_name_or_path, settings.revision
        pipe = build_pipeline(base, revision, unet, encoder).to(dtype)
        save_pipeline(folder, pipe, pipeline_config(settings), lora)
    torch.distributed.barrier()
    return folder


def read_config(folder: str | Path) -> dict[str, Any]:
    """What `altdiffusion.json` of an exported pipeline says.

    Raises:
        FileNotFoundError: no pipeline of ours there.
        ValueError: another version.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"no exported pipeline in {folder}: it holds no {CONFIG}; give a folder that "
            "`altdiffusion train` or `export` wrote"
        )
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("format_version") != VERSION:
        raise ValueError(
            f"{folder} has format_version {config.get('format_version')}; this program reads "
            f"{VERSION}"
        )
    return config


def export(settings: ExportSettings) -> Path:
    """Writes the pipeline, or of a run of train-text the models, of a checkpoint."""
    from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint

    run = Path(settings.checkpoint)
    run, which = (run.parent, str(run)) if run.name.startswith("checkpoint-") else (run, "latest")
    path = run / "settings.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no settings.yaml in {run}: give a run's folder or a checkpoint")
    ranks = start_processes()
    words = ["--config", str(path)]
    if "teacher" in yaml.safe_load(path.read_text(encoding="utf-8")):
        from altdiffusion import train_text
        from altdiffusion.config_text import TrainTextSettings

        text = parse_settings(TrainTextSettings, words, prog="altdiffusion export")
        teacher, student = train_text.load_parts(text, ranks)
        engine = train_text.build_training(text, student.model)
        load_checkpoint(engine, resolve_checkpoint(run, which))
        folder = Path(settings.output_dir)
        return train_text.write_models(engine, student, teacher, folder, ranks)
    from altdiffusion.train import build_training

    trained = parse_settings(TrainSettings, words, prog="altdiffusion export")
    engine, ema = build_training(trained)
    state = load_checkpoint(engine, resolve_checkpoint(run, which))
    if ema is not None:
        ema.load_state_dict(state["ema"])
    dtype = DTYPES[settings.dtype]
    folder = write_pipeline(engine, ema, trained, Path(settings.output_dir), ranks, dtype)
    if ranks.rank == 0:
        print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `altdiffusion export`."""
    return run_verb("altdiffusion export", ExportSettings, export, argv)


if __name__ == "__main__":
    sys.exit(main())
