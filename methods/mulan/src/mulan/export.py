"""The adapter as a folder: written after training or from a checkpoint, read back.

mulan export --checkpoint runs/mulan --output_dir adapters/mulan
torchrun --nproc_per_node 2 -m mulan.export ...      # as many as wrote it, at ZeRO 1 to 3
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from crosslingual.adapter.artifact import load_artifact, load_strict, model_card, save_artifact
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.training.processes import Ranks
from mulan.config import ExportSettings, TrainSettings
from mulan.method import build_adapter

if TYPE_CHECKING:
    from mulan.start import Training

CARD = """\
A MuLan adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the frozen
base `{base}` (MuLan, arXiv 2412.01271; variant {variant}). Languages that trained are listed above;
what else the encoder speaks comes without training, as far as it is aligned across languages.

```python
import diffusers
import mulan

pipe = diffusers.DiffusionPipeline.from_pretrained("{base}")
mulan.attach(pipe, "this/folder")
pipe("...").images[0]
```
"""


def save_adapter(
    state: dict[str, Tensor], config: dict[str, Any], folder: Path, results: list[dict] = ()
) -> Path:
    """Writes config.json, model.safetensors and the model card, with a table of `results` where
    there are any.
    """
    count = sum(tensor.numel() for tensor in state.values())
    card = model_card(
        title="MuLan adapter",
        text=CARD.format(count=count, **config),
        base_model=config["base"],
        languages=config["languages"],
        pipeline_tag="text-to-image",
        tags=["mulan", "cross-lingual"],
        license="mit",
        results=results,
    )
    save_artifact(folder, state=state, config=config, card=card)
    return folder


def write_adapter(training: "Training", config: dict[str, Any], folder: Path, ranks: Ranks) -> Path:
    """Exports what an engine trained (or its moving average); every process must call it."""
    from crosslingual.training.engine import full_state_dict

    if training.ema is None:
        state = full_state_dict(training.engine)
    else:  # beside the engine: ZeRO gathers its own fp32 copy, whatever stands in the module
        named = training.engine.module.named_parameters()
        names = [name for name, parameter in named if parameter.requires_grad]
        state = dict(zip(names, training.ema.shadow_params, strict=True))
    if ranks.rank == 0:
        save_adapter({**training.frozen, **state}, config, folder)
    return folder


def load_adapter(
    folder: str | Path, language: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Reads an exported adapter.

    Args:
        folder: of the adapter.
        language: whose weights a seed adapter uses; its first if None.

    Raises:
        FileNotFoundError, ValueError: no adapter there, a pickle, another method's, keys that do
            not fit, or a language that it has no weights for.
    """
    config, state = load_artifact(folder)
    if config.get("method") != "mulan":
        raise ValueError(f"{folder} holds an adapter of {config.get('method')!r}, not of mulan")
    if language is not None and config["variant"] != "seed":
        raise ValueError(
            f"{folder} has one set of weights for all languages: leave out the language"
        )
    config["language"] = language
    adapter = build_adapter(config)
    load_strict(adapter, state)
    return adapter.eval().requires_grad_(False), config


def export(settings: ExportSettings) -> Path:
    """Writes the adapter of a checkpoint as a folder of safetensors."""
    from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint
    from crosslingual.training.processes import start_processes
    from mulan.info import adapter_config
    from mulan.start import build_training

    run = Path(settings.checkpoint)
    run, which = (run.parent, str(run)) if run.name.startswith("checkpoint-") else (run, "latest")
    checkpoint = resolve_checkpoint(run, which)
    trained = parse_settings(
        TrainSettings, ["--config", str(run / "settings.yaml")], prog="mulan export"
    )
    ranks = start_processes()
    config = adapter_config(trained)
    training = build_training(trained, config)
    state = load_checkpoint(training.engine, checkpoint)
    if training.ema is not None:
        training.ema.load_state_dict(state["ema"])
    folder = write_adapter(training, config, Path(settings.output_dir), ranks)
    if ranks.rank == 0:
        print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan export` and `python -m mulan.export`."""
    return run_verb("mulan export", ExportSettings, export, argv)


if __name__ == "__main__":
    sys.exit(main())
