"""The trained encoder as a folder that stock transformers and diffusers load: written after
training or from a checkpoint, read back.

    FOLDER/config.json      what IAP knows of it: languages, base, length, recommended guidance
    FOLDER/README.md        the model card
    FOLDER/text_encoder/    a transformers AltCLIPTextModel
    FOLDER/tokenizer/       its XLMRobertaTokenizer
    FOLDER/pipeline/        the whole base with both in place, if asked for
"""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter.artifact import load_artifact_config, model_card, save_artifact
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.base import load_pipeline
from crosslingual.frozen.weights import load_frozen
from crosslingual.training.engine import full_state_dict
from crosslingual.training.processes import Ranks
from iap.config import ExportSettings, TrainSettings
from iap.data import load_tokenizer
from iap.encoder import merged_state, stock_model

CARD = """\
A text encoder of {count:,} parameters for the Stable Diffusion base `{base}`, in place of its
English one: it started from `{text_encoder}` and was aligned through the base's cross-attention
(IAP, arXiv 2305.11540; objective {objective}, branch {branch}, distance {distance}). It is a
`transformers` `AltCLIPTextModel`, so that stock diffusers loads it:

```python
from diffusers import StableDiffusionPipeline
from transformers import AltCLIPTextModel, XLMRobertaTokenizer

pipe = StableDiffusionPipeline.from_pretrained(
    "{base}",
    text_encoder=AltCLIPTextModel.from_pretrained("this/folder", subfolder="text_encoder"),
    tokenizer=XLMRobertaTokenizer.from_pretrained("this/folder", subfolder="tokenizer"),
)
pipe("...", guidance_scale={guidance_scale}).images[0]
```
"""


def save_encoder(
    state: dict[str, Tensor], config: dict[str, Any], folder: Path, *, pipeline: bool = False
) -> Path:
    """Writes the encoder's folder, complete or not at all.

    Args:
        state: the whole encoder's tensors, by the names of `AltCLIPTextModel`.
        config: of `iap.info.encoder_config`.
        folder: replaced if it holds an adapter already.
        pipeline: the whole base as well.
    """
    model = stock_model(config["altclip"], state)
    tokenizer = load_tokenizer(
        config["text_encoder"], config["text_encoder_revision"], config["max_length"]
    )

    def add(partial: Path) -> None:
        model.save_pretrained(partial / "text_encoder")
        tokenizer.save_pretrained(partial / "tokenizer")
        if pipeline:
            pipe = load_pipeline(config["base"], config["base_revision"])
            set_encoder(pipe, model, tokenizer).save_pretrained(partial / "pipeline")

    card = model_card(
        title="IAP text encoder",
        text=CARD.format(count=sum(tensor.numel() for tensor in state.values()), **config),
        base_model=config["base"],
        languages=config["languages"],
        pipeline_tag="text-to-image",
        tags=["iap", "cross-lingual"],
        license="mit",
    )
    save_artifact(folder, state=None, config=config, card=card, add=add)
    return folder


def set_encoder(pipe: Any, model: Any, tokenizer: Any) -> Any:
    """Puts an encoder and its tokenizer in a pipeline.

    Raises:
        ValueError: the pipeline's base is of another family.
    """
    width, unet = model.config.project_dim, pipe.unet.config
    if unet.cross_attention_dim != width or unet.addition_embed_type == "text_time":
        raise ValueError(
            f"the encoder gives states of width {width} and no pooled vector, but this base's UNet "
            f"takes width {unet.cross_attention_dim}"
            f"{' with' if unet.addition_embed_type == 'text_time' else ' without'} a pooled "
            "vector: use the encoder's base"
        )
    model = model.to(pipe.unet.device, pipe.unet.dtype)
    pipe.register_modules(text_encoder=model, tokenizer=tokenizer)
    return pipe


def write_encoder(
    engine: Any, config: dict[str, Any], folder: Path, ranks: Ranks, *, pipeline: bool = False
) -> Path:
    """Exports what an engine trained; every process must call it."""
    trained = full_state_dict(engine)
    if ranks.rank == 0:
        save_encoder(merged_state(engine.module, trained), config, folder, pipeline=pipeline)
    return folder


def load_encoder(folder: str | Path) -> tuple[Any, Any, dict[str, Any]]:
    """Reads an exported encoder: the `AltCLIPTextModel`, its tokenizer and the config.

    Raises:
        FileNotFoundError, ValueError: no encoder there, a pickle, another method's, or keys that do
            not fit.
    """
    from transformers import AltCLIPTextModel

    folder = Path(folder)
    config = load_artifact_config(folder)
    if config.get("method") != "iap":
        raise ValueError(f"{folder} holds an adapter of {config.get('method')!r}, not of iap")
    model = load_frozen(AltCLIPTextModel, str(folder / "text_encoder"))
    return model, load_tokenizer(str(folder / "tokenizer"), None, config["max_length"]), config


def export(settings: ExportSettings) -> Path:
    """Writes the encoder of a checkpoint as a folder."""
    from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint
    from crosslingual.training.processes import start_processes
    from iap.info import encoder_config
    from iap.train import build_training

    run = Path(settings.checkpoint)
    run, which = (run.parent, str(run)) if run.name.startswith("checkpoint-") else (run, "latest")
    trained = parse_settings(
        TrainSettings, ["--config", str(run / "settings.yaml")], prog="iap export"
    )
    ranks = start_processes()
    config = encoder_config(trained)
    engine = build_training(trained, config)
    load_checkpoint(engine, resolve_checkpoint(run, which))
    folder = write_encoder(
        engine, config, Path(settings.output_dir), ranks, pipeline=settings.pipeline
    )
    print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap export`."""
    return run_verb("iap export", ExportSettings, export, argv)


if __name__ == "__main__":
    sys.exit(main())
