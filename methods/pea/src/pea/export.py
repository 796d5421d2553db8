"""The adapter as a folder: written after training or from a checkpoint, read back, attached to a
pipeline.
"""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from crosslingual.adapter.artifact import load_artifact, load_strict, model_card, save_artifact
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.training.processes import Ranks
from pea.config import ExportSettings, TrainSettings
from pea.method import build_adapter

CARD = """\
A PEA adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the frozen UNet
of `{base}`, distilled from the English pipeline (PEA-Diffusion, arXiv 2311.17086; variant
{variant}).

```python
from diffusers import AutoPipelineForText2Image
import pea

pipe = AutoPipelineForText2Image.from_pretrained("{base}")
pea.attach(pipe, "this/folder")
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
        title="PEA adapter",
        text=CARD.format(count=count, **config),
        base_model=config["base"],
        languages=config["languages"],
        pipeline_tag="text-to-image",
        tags=["pea", "cross-lingual"],
        license="mit",
        results=results,
    )
    save_artifact(folder, state=state, config=config, card=card)
    return folder


def write_adapter(
    engine: Any, ema: Any, config: dict[str, Any], folder: Path, ranks: Ranks
) -> Path:
    """Exports what an engine trained (or its moving average); every process must call it."""
    from crosslingual.training.engine import full_state_dict

    if ema is None:
        state = full_state_dict(engine)
    else:  # beside the engine: ZeRO gathers its own fp32 copy, whatever stands in the module
        names = [name for name, _ in engine.module.named_parameters()]
        state = dict(zip(names, ema.shadow_params, strict=True))
    if ranks.rank == 0:
        save_adapter(state, config, folder)
    return folder


def load_adapter(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Reads an exported adapter.

    Raises:
        FileNotFoundError, ValueError: no adapter there, a pickle, another method's, or keys that do
            not fit.
    """
    config, state = load_artifact(folder)
    if config.get("method") != "pea":
        raise ValueError(f"{folder} holds an adapter of {config.get('method')!r}, not of pea")
    adapter = build_adapter(config)
    load_strict(adapter, state)
    return adapter.eval().requires_grad_(False), config


def export(settings: ExportSettings) -> Path:
    """Writes the adapter of a checkpoint as a folder of safetensors."""
    from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint
    from crosslingual.training.processes import start_processes
    from pea.info import adapter_config
    from pea.train import build_training

    run = Path(settings.checkpoint)
    run, which = (run.parent, str(run)) if run.name.startswith("checkpoint-") else (run, "latest")
    trained = parse_settings(
        TrainSettings, ["--config", str(run / "settings.yaml")], prog="pea export"
    )
    ranks = start_processes()
    config = adapter_config(trained)
    engine, ema = build_training(trained, config)
    state = load_checkpoint(engine, resolve_checkpoint(run, which))
    if ema is not None:
        ema.load_state_dict(state["ema"])
    folder = write_adapter(engine, ema, config, Path(settings.output_dir), ranks)
    print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea export`."""
    return run_verb("pea export", ExportSettings, export, argv)


if __name__ == "__main__":
    sys.exit(main())
