"""The adapter as a folder: written after training or from a checkpoint, read back.

template export --checkpoint runs/template --output_dir adapter
torchrun --nproc_per_node 2 -m template.export ...      # as many as wrote it, at ZeRO 1 to 3
"""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from crosslingual.adapter.artifact import load_artifact, load_strict, model_card, save_artifact
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.training.processes import Ranks
from template.config import ExportSettings, TrainSettings
from template.method import build_adapter

CARD = """\
A text-space adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the
frozen UNet of `{base}`, trained on parallel captions until its states equal those of the English
encoder.

```python
from diffusers import AutoPipelineForText2Image
import template

pipe = AutoPipelineForText2Image.from_pretrained("{base}")
template.attach(pipe, "this/folder")
pipe("...").images[0]
```
"""


def save_adapter(state: dict[str, Tensor], config: dict[str, Any], folder: Path) -> None:
    """Writes config.json, model.safetensors and the model card."""
    count = sum(tensor.numel() for tensor in state.values())
    card = model_card(
        title="Text-space adapter",
        text=CARD.format(count=count, **config),
        base_model=config["base"],
        languages=config["languages"],
        pipeline_tag="text-to-image",
        tags=["template", "cross-lingual"],
        license="mit",
    )
    save_artifact(folder, state=state, config=config, card=card)


def write_adapter(engine: Any, config: dict[str, Any], folder: Path, ranks: Ranks) -> Path:
    """Exports what an engine trained; every process must call it."""
    from crosslingual.training.engine import full_state_dict

    state = full_state_dict(engine)
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
    if config.get("method") != "template":
        raise ValueError(f"{folder} holds an adapter of {config.get('method')!r}, not of template")
    adapter = build_adapter(config)
    load_strict(adapter, state)
    return adapter.eval().requires_grad_(False), config


def export(settings: ExportSettings) -> Path:
    """Writes the adapter of a checkpoint as a folder of safetensors."""
    from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint
    from crosslingual.training.processes import start_processes
    from template.info import adapter_config
    from template.train import build_training

    run = Path(settings.checkpoint)
    run, which = (run.parent, str(run)) if run.name.startswith("checkpoint-") else (run, "latest")
    checkpoint = resolve_checkpoint(run, which)
    trained = parse_settings(
        TrainSettings, ["--config", str(run / "settings.yaml")], prog="template export"
    )
    ranks = start_processes()
    config = adapter_config(trained)
    engine = build_training(trained, config)
    load_checkpoint(engine, checkpoint)
    folder = write_adapter(engine, config, Path(settings.output_dir), ranks)
    if ranks.rank == 0:
        print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `template export` and `python -m template.export`."""
    return run_verb("template export", ExportSettings, export, argv)


if __name__ == "__main__":
    sys.exit(main())
